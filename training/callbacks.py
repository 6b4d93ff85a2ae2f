"""What happens around the steps: progress bar, time limit, complete-checkpoint marks, throughput, held-out loss."""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

COMPLETE = "complete"


def all_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over the ranks, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
    return value


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


class Progress(TrainerCallback):
    """One bar on rank 0: steps, remaining time, loss, tokens a second."""

    def __init__(self, throughput: Throughput, title: str, world_size: int):
        self.throughput, self.title, self.world_size = throughput, title, world_size
        self.bar, self.shown = None, {}

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        from tqdm.auto import tqdm

        # Into a file or pipe a bar of every step is noise: one line every few seconds is enough.
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", dynamic_ncols=terminal,
            mininterval=0.5 if terminal else 5.0, ncols=None if terminal else 110,
        )  # fmt: skip

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.bar is not None and "loss" in (logs or {}):
            rate = self.throughput.tokens_per_second() * self.world_size
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.3f}, {rate:,.0f} tok/s", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None


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


class CompleteMark(TrainerCallback):
    """Marks a checkpoint as complete once every rank has written its part, so that resume never picks a torn one."""

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            (folder / COMPLETE).write_text(f"step {state.global_step}\n", encoding="utf-8")


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    """The complete checkpoint with the highest step, or None."""
    found = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (path / COMPLETE).exists()]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


class HeldOut(TrainerCallback):
    """Measures the held-out loss before the first and after the last step and writes `heldout.json`."""

    def __init__(self, measure, folder: Path):
        """measure: () -> dict, called by all ranks at the same time; its result is the same on all of them."""
        self.measure, self.path = measure, folder / "heldout.json"

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:  # a resumed run keeps what the first start measured
            self._write(state, "before", self.measure())

    def on_train_end(self, args, state, control, **kwargs):
        self._write(state, "after", self.measure())

    def _write(self, state, moment: str, result: dict) -> None:
        if not state.is_world_process_zero:
            return
        record = json.loads(self.path.read_text(encoding="utf-8")) if moment == "after" and self.path.exists() else {}
        record[moment] = result
        if "before" in record and "after" in record:
            record["change"] = round(record["after"]["loss"] / max(record["before"]["loss"], 1e-9) - 1, 4)
        self.path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
