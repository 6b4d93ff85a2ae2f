"""The progress bar of rank 0."""

import sys

from transformers import TrainerCallback

from training.watch.throughput import Throughput


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
