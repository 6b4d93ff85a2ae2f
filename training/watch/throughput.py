"""What went through a stage: tokens, padding, pictures, seconds, memory."""

import resource
import sys
import time

import torch
from transformers import TrainerCallback

from training.ranks import all_ranks


class Throughput:
    """Counts what went through: tokens, padding, images, and the time spent waiting for data.

    Counts stay tensors on their device until `read()`, so counting never waits for the accelerator.
    """

    def __init__(self, device: torch.device):
        self.started = self.stopped = time.perf_counter()
        self.counts = torch.zeros(4, dtype=torch.float64, device=device if device.type != "mps" else "cpu")
        self.waited = 0.0
        self.steps = 0

    def restart(self) -> None:
        self.started = time.perf_counter()

    def add(self, batch: dict, waited: float) -> None:
        """Count one batch: (real tokens, padded tokens, samples, images and video frames groups)."""
        mask = batch.get("attention_mask")
        ids = batch["input_ids"]
        real = mask.ne(0).sum() if mask is not None else torch.tensor(ids.numel())
        media = sum(len(batch[key]) for key in ("image_grid_hw", "video_grid_thw") if batch.get(key) is not None)
        self.counts[0] += real.to(self.counts.device)
        self.counts[1:] += torch.tensor([ids.numel(), ids.shape[0], media]).to(self.counts)
        self.waited += waited

    def tokens_per_second(self) -> float:
        """This process's real tokens a second since the start (reads the device)."""
        return self.counts[0].item() / max(time.perf_counter() - self.started, 1e-9)

    def read(self, world_size: int) -> dict:
        """Totals over all ranks."""
        seconds = max(self.stopped - self.started, 1e-9)
        real, padded, samples, media = all_ranks(self.counts.clone()).tolist()
        record = {
            "steps": self.steps,
            "seconds": round(seconds, 3),
            "seconds_per_step": round(seconds / max(self.steps, 1), 4),
            "samples_per_second": round(samples / seconds, 3),
            "tokens_per_second": round(real / seconds, 1),
            "real_token_share": round(real / max(padded, 1), 4),
            "media_per_second": round(media / seconds, 3),
            "data_wait_share": round(self.waited / seconds, 4),
            "processes": world_size,
            "threads_per_process": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if self.counts.is_cuda else "cpu",
            "peak_memory_mb": round(_peak_memory() / 2**20),
        }
        return record


def _peak_memory() -> int:
    """Bytes: device memory on CUDA, else the resident size of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Clock(TrainerCallback):
    """Starts and stops the throughput clock, and ends training at `max_seconds` on all ranks at the same step."""

    def __init__(self, throughput: Throughput, max_seconds: float | None):
        self.throughput, self.max_seconds = throughput, max_seconds

    def on_train_begin(self, args, state, control, **kwargs):
        self.throughput.restart()

    def on_step_end(self, args, state, control, **kwargs):
        self.throughput.steps += 1
        self.throughput.stopped = time.perf_counter()
        if self.max_seconds is None:
            return
        # Rank 0's clock decides for all: ranks that stop at different steps would wait for each other for ever.
        late = torch.tensor(
            float(state.is_world_process_zero and self.throughput.stopped - self.throughput.started > self.max_seconds),
            device=args.device,
        )
        if all_ranks(late).item() > 0:
            control.should_training_stop = True
