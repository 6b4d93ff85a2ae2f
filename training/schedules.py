"""Learning-rate schedules as plain functions of the step: the factor by which every group's own rate is multiplied.

One factor for all groups, so that rates per module (and per block, see `training/optimizers.py`) keep their ratio. Our
own because transformers' linear and constant schedules know no floor, and its WSD counts its parts in steps.
"""

import math

import torch

from training.recipe import Train


def warmup_steps(train: Train) -> int:
    """Steps over which the rate rises from 0."""
    return round(train.warmup_ratio * train.max_steps)


def decay_steps(train: Train) -> int:
    """Steps over which `wsd` decays at the end; it never reaches into the warm-up."""
    return min(max(1, round(train.decay_ratio * train.max_steps)), train.max_steps - warmup_steps(train))


def schedule_factor(step: int, train: Train) -> float:
    """Factor on the learning rates at `step` (0 is the first), in [0, 1].

    Rises linearly from 0 in the warm-up; then, with p from 0 to 1 over what is left and m = min_lr_ratio: cosine
    `m + (1 - m) (1 + cos πp) / 2`, linear `m + (1 - m) (1 - p)`, constant 1; wsd is 1 and then linear over its decay.
    """
    rise, end = warmup_steps(train), train.max_steps
    if step < rise:
        return step / rise
    if train.schedule == "constant":
        return 1.0
    start = end - decay_steps(train) if train.schedule == "wsd" else rise
    share = min(max(step - start, 0) / max(end - start, 1), 1.0)
    falling = 0.5 * (1 + math.cos(math.pi * share)) if train.schedule == "cosine" else 1 - share
    return train.min_lr_ratio + (1 - train.min_lr_ratio) * falling


def build_scheduler(optimizer: torch.optim.Optimizer, train: Train) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule over all groups of `optimizer`; its state is one step number."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule_factor(step, train))
