"""The training loop both bases share: Muon for matrices and AdamW for the rest, a cosine over the given seconds (or
over a number of steps, for tests), and one progress line with the remaining time.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from training.optimizers import matrix_ids

WARMUP = 0.03


def arguments(about: str) -> argparse.ArgumentParser:
    """Options of a base's command."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--seconds", type=float, default=60.0, help="training time")
    parser.add_argument("--steps", type=int, default=0, help="train this many steps instead of --seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    return parser


def rate(done: float) -> float:
    """Factor of the learning rates when a share ``done`` in [0, 1] of the training has passed."""
    return min(1.0, done / WARMUP + 0.01) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class Optimizers:
    """Muon on hidden matrices, AdamW on everything else, gradients clipped to 1."""

    def __init__(self, model: nn.Module, muon_lr: float = 0.02, adam_lr: float = 2e-3):
        hidden = matrix_ids(model)
        matrices = [parameter for parameter in model.parameters() if id(parameter) in hidden]
        others = [parameter for parameter in model.parameters() if id(parameter) not in hidden]
        self.parameters = matrices + others
        muon = torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.0, adjust_lr_fn="original")
        adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.parts = [(muon, muon_lr), (adam, adam_lr)]

    def step(self, factor: float) -> None:
        """One update at ``factor`` times the learning rates; clears the gradients."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, lr in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.step()
            optimizer.zero_grad()


class Progress:
    """One line on stderr: a bar, the loss, a figure, the remaining time; a fresh line every 5 s in a log file."""

    def __init__(self, title: str):
        self.title, self.shown, self.live = title, -1e9, sys.stderr.isatty()
        self.started = time.monotonic()

    def show(self, done: float, loss: float, note: str = "") -> None:
        now = time.monotonic()
        if done < 1.0 and now - self.shown < (0.5 if self.live else 5.0):
            return
        self.shown = now
        passed = now - self.started
        left = round(passed * (1.0 - done) / done) if done > 0.01 else None  # the first steps are no measure
        time_left = "" if left is None else f"{left // 60}:{left % 60:02d} left"
        bar = ("#" * int(24 * done)).ljust(24, ".")
        line = f"{self.title} [{bar}] loss {loss:.3f} {note} {time_left}"
        sys.stderr.write(("\r" + line.ljust(100)) if self.live else line + "\n")
        if self.live and done >= 1.0:
            sys.stderr.write("\n")
        sys.stderr.flush()


def train(
    title: str,
    model: nn.Module,
    compute: Callable[[float], tuple[torch.Tensor, str]],
    options: argparse.Namespace,
) -> list[float]:
    """Runs ``compute(done) -> (loss, note)`` and steps until the time or the steps are used up; returns the losses."""
    optimizers, progress = Optimizers(model), Progress(title)
    losses: list[float] = []
    started = time.monotonic()
    while True:
        passed = time.monotonic() - started
        done = len(losses) / options.steps if options.steps else passed / max(options.seconds, 1e-6)
        if done >= 1.0:
            progress.show(1.0, losses[-1] if losses else float("nan"))
            return losses
        loss, note = compute(done)
        loss.backward()
        optimizers.step(rate(done))
        losses.append(loss.item())
        recent = losses[-20:]
        progress.show(done, sum(recent) / len(recent), note)
