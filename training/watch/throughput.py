"""What went through a stage: tokens, padding, pictures, seconds, memory, and how much of the device's peak was used.

Counts are read twice: since the last log, for the progress line and the loggers, and as a whole, for throughput.json.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

import torch
from transformers import TrainerCallback

from training.ranks import all_ranks, world_size

COUNTS = ("tokens", "places", "samples", "media", "patches", "flops", "waited")


class Throughput:
    """Counts what went through this process, and the time spent waiting for data.

    Counts of batches that lie on an accelerator stay there until they are read, so counting never waits for it. The
    clock is that of training alone: what happens in `paused()` (predictions, held-out loss) takes no time on it.

    Args:
        flops: batch -> floating-point operations of its training step; None leaves the utilisation out.
        peak_tflops: dense peak of a device, for the utilisation; None: not known.
    """

    def __init__(
        self, device: torch.device, flops: Callable[[dict], float] | None = None, peak_tflops: float | None = None
    ):
        self.flops, self.peak_tflops = flops, peak_tflops
        self.idle = 0.0
        self.counts = torch.zeros(len(COUNTS), dtype=torch.float64, device=device if device.type != "mps" else "cpu")
        self.steps = 0
        self.restart()

    def restart(self) -> None:
        self.started = self.stopped = self.marked = self.now()
        self.seen, self.seen_steps = self.counts.clone(), self.steps

    def now(self) -> float:
        """Seconds on the clock of training."""
        return time.perf_counter() - self.idle

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What runs inside is not training time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.idle += time.perf_counter() - started

    def add(self, batch: dict, waited: float) -> None:
        """Count one batch of this process, for which it waited so many seconds."""
        mask = batch.get("attention_mask")
        ids = batch["input_ids"]
        real = mask.ne(0).sum() if mask is not None else torch.tensor(ids.numel())
        samples = len(batch["sample_ids"]) if "sample_ids" in batch else ids.shape[0]  # a packed row holds several
        media = sum(len(batch[key]) for key in ("image_grid_hw", "video_grid_thw") if batch.get(key) is not None)
        patches = sum(len(batch[key]) for key in ("pixel_values", "pixel_values_videos") if batch.get(key) is not None)
        flops = self.flops(batch) if self.flops is not None else 0.0
        self.counts[0] += real.to(self.counts.device)
        self.counts[1:] += torch.tensor([ids.numel(), samples, media, patches, flops, waited]).to(self.counts)

    def step_done(self) -> None:
        self.steps += 1
        self.stopped = self.now()

    @property
    def seconds(self) -> float:
        """Training time so far, up to the end of the last step."""
        return max(self.stopped - self.started, 1e-9)

    def interval(self) -> dict:
        """Figures since the last call, over all ranks; called by all of them together."""
        counts, seconds = self.counts - self.seen, max(self.stopped - self.marked, 1e-9)
        steps = self.steps - self.seen_steps
        self.seen, self.seen_steps, self.marked = self.counts.clone(), self.steps, self.stopped
        return {**self._figures(counts, seconds, steps), "memory_gb": round(_most(_peak_memory()) / 1e9, 3)}

    def read(self, processes: int) -> dict:
        """Totals over all ranks, for throughput.json; called by all of them together."""
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            **self._figures(self.counts, self.seconds, self.steps),
            "processes": processes,
            "threads_per_process": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if self.counts.is_cuda else "cpu",
            "peak_memory_mb": round(_most(_peak_memory()) / 2**20),
        }

    def _figures(self, counts: torch.Tensor, seconds: float, steps: int) -> dict:
        total = dict(zip(COUNTS, all_ranks(counts.clone()).tolist(), strict=True))
        figures = {
            "seconds_per_step": round(seconds / max(steps, 1), 4),
            "samples_per_second": round(total["samples"] / seconds, 3),
            "tokens_per_second": round(total["tokens"] / seconds, 1),
            "real_token_share": round(total["tokens"] / max(total["places"], 1), 4),
            "media_per_second": round(total["media"] / seconds, 3),
            "patches_per_second": round(total["patches"] / seconds, 1),
            "data_wait_share": round(total["waited"] / world_size() / seconds, 4),
        }
        if total["flops"]:
            tflops = total["flops"] / seconds / world_size() / 1e12
            figures["tflops_per_device"] = round(tflops, 4)
            if self.peak_tflops:
                figures["mfu"] = round(tflops / self.peak_tflops, 4)
        return figures


def _peak_memory() -> int:
    """Bytes: device memory on CUDA, else the resident size of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _most(value: float) -> float:
    """The largest over all ranks."""
    largest = torch.tensor(float(value), dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")
    if world_size() > 1:
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return largest.item()


class Clock(TrainerCallback):
    """Starts and stops the throughput clock, and ends training at `max_seconds` on all ranks at the same step."""

    def __init__(self, throughput: Throughput, max_seconds: float | None):
        self.throughput, self.max_seconds = throughput, max_seconds

    def on_train_begin(self, args, state, control, **kwargs):
        self.throughput.restart()

    def on_step_end(self, args, state, control, **kwargs):
        self.throughput.step_done()
        if self.max_seconds is None:
            return
        # Rank 0's clock decides for all: ranks that stop at different steps would wait for each other for ever.
        late = torch.tensor(
            float(state.is_world_process_zero and self.throughput.seconds > self.max_seconds), device=args.device
        )
        if all_ranks(late).item() > 0:
            control.should_training_stop = True
