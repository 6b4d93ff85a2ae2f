"""What rank 0 shows while a stage runs: a bar in a terminal, a line now and then in a file or a pipe."""

import logging
import sys
import time

from transformers import TrainerCallback

from training.watch.throughput import Throughput

logger = logging.getLogger("training")
PLAIN_SECONDS = 10.0  # between two lines
SOURCES = 4  # shown of the sources' losses, the largest


class Progress(TrainerCallback):
    """Steps, remaining time and the figures of the last log.

    Args:
        terminal: bar (True) or lines; default: whether standard error is a terminal.
    """

    def __init__(self, throughput: Throughput, title: str, max_seconds: float | None, terminal: bool | None = None):
        self.throughput, self.title, self.max_seconds = throughput, title, max_seconds
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.bar, self.first_step, self.last_line = None, 0, -PLAIN_SECONDS

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step = state.global_step
        if state.is_world_process_zero and self.terminal:
            from tqdm.auto import tqdm

            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", dynamic_ncols=True,
                mininterval=0.5,
            )  # fmt: skip

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        if self.bar is not None:
            self.bar.set_postfix_str(progress_line(logs), refresh=False)
            return
        last = state.global_step >= state.max_steps or control.should_training_stop
        if last or time.monotonic() - self.last_line >= PLAIN_SECONDS:
            self.last_line = time.monotonic()
            left = "" if last else f", {clock(self.remaining(state))} left"
            logger.info(f"{self.title} {state.global_step}/{state.max_steps}: {progress_line(logs)}{left}")

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def remaining(self, state) -> float:
        """Seconds of training left at the pace of this run, or to its time limit."""
        done = max(state.global_step - self.first_step, 1)
        left = (state.max_steps - state.global_step) * self.throughput.seconds / done
        return left if self.max_seconds is None else min(left, max(self.max_seconds - self.throughput.seconds, 0.0))


def progress_line(logs: dict) -> str:
    """The figures of a log entry in one line; what is not there is left out."""
    parts = [f"loss {float(logs['loss']):.3f}"]
    sources = {name.partition("/")[2]: loss for name, loss in logs.items() if name.startswith("source_loss/")}
    if len(sources) > 1:
        shown = sorted(sources.items(), key=lambda pair: -pair[1])[:SOURCES]
        more = " …" if len(sources) > SOURCES else ""
        parts[0] += f" ({', '.join(f'{name} {loss:.2f}' for name, loss in shown)}{more})"
    if "distill_kl" in logs:
        parts.append(f"KL {logs['distill_kl']:.3f}")
    if "tokens_per_second" in logs:
        parts.append(f"{logs['tokens_per_second']:,.0f} tok/s")
    if "packing_fill" in logs:
        parts.append(f"{logs['packing_fill']:.1%} full")
    elif "real_token_share" in logs:
        parts.append(f"{logs['real_token_share']:.0%} real")
    if "mfu" in logs:
        parts.append(f"MFU {logs['mfu']:.1%}")
    if "memory_gb" in logs:
        parts.append(f"{logs['memory_gb']:.1f} GB")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
