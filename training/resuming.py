"""Going on from a checkpoint: which one, whether it fits this launch, and its conversion for another number of ranks.

DeepSpeed cuts optimizer states for the number of processes that ran. For another number they are converted once to
DeepSpeed's universal form, beside the checkpoint, and read from there.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from training.arguments import zero_stage
from training.checkpoints import Checkpoints, Layout, layout_of, newest_checkpoint, read_positions
from training.environment import Machine
from training.preemption import LeaveAfterSaving, StopSignals
from training.recipe import Recipe, RecipeError

CONVERTED = "latest_universal"  # written last by DeepSpeed's converter
LOGGER = logging.getLogger("training")


@dataclass(frozen=True)
class Resume:
    """A checkpoint to go on from. universal: its optimizer states must be read in DeepSpeed's universal form."""

    path: Path
    layout: Layout
    universal: bool


def find_resume(recipe: Recipe, machine: Machine, zero: int) -> Resume | None:
    """The checkpoint that `recipe.resume` means, checked against this launch; None: start from the beginning.

    Args:
        zero: ZeRO stage of this launch, 0 without DeepSpeed.

    Raises:
        RecipeError: the checkpoint is torn, belongs to another layout that cannot be converted, or there are
            checkpoints that a start from the beginning would destroy.
    """
    output = Path(recipe.output_dir)
    path = newest_checkpoint(output) if recipe.resume is True else Path(recipe.resume) if recipe.resume else None
    if path is None:
        left = newest_checkpoint(output)
        if left is not None:
            raise RecipeError(
                f"{output} holds checkpoints of an earlier run ({left.name}): set resume=true to go on, another "
                f"output_dir, or remove them with `rm -r {output}/checkpoint-*`"
            )
        return None
    layout = layout_of(path)
    if layout is None:
        raise RecipeError(f"resume = {path} is not a complete checkpoint (it has no file `complete`): choose another")
    _check_batch(recipe, machine, path, layout)
    return Resume(path, layout, universal=_needs_conversion(machine, zero, path, layout))


def _check_batch(recipe: Recipe, machine: Machine, path: Path, layout: Layout) -> None:
    train = recipe.train
    batch = global_batch_size(recipe, machine.world_size)
    if batch == layout.global_batch_size:
        return
    if train.global_batch_size is None:
        raise RecipeError(
            f"{path} was trained with {layout.global_batch_size} samples a step on {layout.processes} processes; "
            f"{machine.world_size} processes with these settings take {batch}: set "
            f"train.global_batch_size={layout.global_batch_size} (and no gradient_accumulation_steps), or the number "
            "you want"
        )
    if machine.is_main:
        LOGGER.warning(f"samples a step change from {layout.global_batch_size} to {batch}, as the recipe says")


def _needs_conversion(machine: Machine, zero: int, path: Path, layout: Layout) -> bool:
    """Whether the optimizer states must be converted. Raises RecipeError where they cannot be."""
    if zero == 0 and layout.zero == 0:
        return False  # whole optimizer states, whatever the number of processes
    if zero == layout.zero and machine.world_size == layout.processes:
        return False
    here = f"ZeRO-{zero} on {machine.world_size} processes" if zero else "no DeepSpeed"
    there = f"ZeRO-{layout.zero} on {layout.processes} processes" if layout.zero else "no DeepSpeed"
    if zero == 0 or layout.zero == 0:
        raise RecipeError(
            f"{path} was written with {there}, and this launch has {here}; optimizer states cannot be carried over: "
            + (f"set train.zero=zero{layout.zero} and start with a launcher (deepspeed --num_accelerators 1 ...)"
               if layout.zero else "set train.zero=none")
        )  # fmt: skip
    if (zero == 3) != (layout.zero == 3):
        raise RecipeError(
            f"{path} was written with {there}, and this launch has {here}; DeepSpeed cannot carry optimizer states "
            f"between ZeRO-3 and the others: set train.zero=zero{layout.zero}"
        )
    if layout.muon:
        raise RecipeError(
            f"{path} was written with {there}, and this launch has {here}; DeepSpeed's universal checkpoints hold "
            "AdamW's two moments and no Muon momentum: use the same train.zero and number of processes, or start over "
            f"from the weights with model={path} and another output_dir"
        )
    return True


def global_batch_size(recipe: Recipe, world_size: int) -> int:
    """Samples (packed: rows) of one optimizer step."""
    return recipe.train.per_device_batch_size * recipe.accumulation(world_size) * world_size


def convert(resume: Resume, machine: Machine) -> None:
    """Write the universal form beside the checkpoint, unless it is there. Rank 0 converts, the others wait for the file
    that ends the conversion: it may take longer than a collective's time limit."""
    done = resume.path / CONVERTED
    if not machine.is_main:
        while not done.exists():
            time.sleep(1.0)
        return
    if done.exists():
        return
    tag = (resume.path / "latest").read_text(encoding="utf-8").strip()
    target = resume.path / f"{tag}_universal"
    shutil.rmtree(target, ignore_errors=True)  # of an interrupted conversion
    LOGGER.info(f"converting {resume.path} from {resume.layout.processes} to {machine.world_size} processes")
    workers = str(min(resume.layout.processes, os.cpu_count() or 1))
    command = [
        sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state",
        "--input_folder", str(resume.path / tag), "--output_folder", str(target),
        "--num_extract_workers", workers, "--num_merge_workers", workers,
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise RecipeError(f"DeepSpeed could not convert {resume.path}: {found.stderr.strip()[-2000:]}")


def load_position(loader, resume: Resume, machine: Machine) -> None:
    """Set this rank's loader to where the checkpoint left off, dealt anew when the number of ranks has changed."""
    states = read_positions(resume.path, resume.layout.processes)
    if resume.layout.processes != machine.world_size:
        from training.data.resharding import reshard

        states = reshard(states, machine.world_size)
    loader.load_state_dict(states[machine.rank])


class NothingLeft(Exception):
    """The checkpoint is that of the last step: only the result has to be saved."""


class Resumed(TrainerCallback):
    """What the library leaves to do at the start of a resumed run."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        # the checkpoint's own would be kept, whatever the recipe says now
        state.save_steps, state.logging_steps = args.save_steps, args.logging_steps
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, ExportableState):  # one that the checkpoint does not know fails at the next save
                state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
        if state.global_step >= state.max_steps:  # the library would train one step too many
            raise NothingLeft


def add_checkpoints(trainer, recipe: Recipe, machine: Machine, resume: Resume | None) -> None:
    """Give a trainer the callbacks that save, leave and resume. They come last, so that what others keep in a
    checkpoint is there before it is marked."""
    layout = {
        "processes": machine.world_size,
        "zero": zero_stage(recipe, machine),
        "muon": recipe.uses_muon(),
        "global_batch_size": global_batch_size(recipe, machine.world_size),
    }
    signals = StopSignals()
    callbacks = [signals, Checkpoints(trainer, layout, recipe.train.save_total_limit, machine.rank)]
    callbacks.append(LeaveAfterSaving(signals))
    if resume is not None:
        callbacks += [RecipeSettings(trainer.groups), *([MendCounters()] if resume.universal else []), Resumed(trainer)]
    for callback in callbacks:
        trainer.add_callback(callback)


class RecipeSettings(TrainerCallback):
    """Gives every optimizer group the rate, decay and betas that the recipe has now. A checkpoint brings its own, which
    would silently win; and after reading universal states DeepSpeed 0.19 gives all groups those of the first one.
    """

    def __init__(self, groups: list[dict]):
        self.settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]

    def on_train_begin(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        schedule = lr_scheduler
        while not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):  # accelerate's wrapper
            schedule = schedule.scheduler
        before, schedule.base_lrs = schedule.base_lrs, [settings["lr"] for settings in self.settings]
        schedule._last_lr = [settings["lr"] * factor(schedule.last_epoch)  # of the step that comes now
                             for settings, factor in zip(self.settings, schedule.lr_lambdas, strict=True)]  # fmt: skip
        groups = inner_optimizer(optimizer).param_groups
        for group, settings, rate in zip(groups, self.settings, schedule._last_lr, strict=True):
            group.update(settings | {"initial_lr": settings["lr"], "lr": rate})
        changed = [f"{settings['name']} {old:g} -> {settings['lr']:g}"
                   for settings, old in zip(self.settings, before, strict=True) if settings["lr"] != old]  # fmt: skip
        if changed:
            LOGGER.info(f"learning rates follow the recipe, not the checkpoint: {', '.join(changed)}")


class MendCounters(TrainerCallback):
    """Step counters as DeepSpeed 0.19 leaves them after reading universal states under ZeRO-3: one for all parameters,
    which would then count once for each of them; and on the CPU, where fused AdamW refuses them.
    """

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        for parameter, state_of in inner_optimizer(optimizer).state.items():
            if isinstance(state_of.get("step"), torch.Tensor):
                state_of["step"] = state_of["step"].clone().to(parameter.device)


def inner_optimizer(optimizer) -> torch.optim.Optimizer:
    """The optimizer below accelerate's and DeepSpeed's wrappers."""
    zero = getattr(optimizer, "optimizer", optimizer)
    return getattr(zero, "optimizer", zero)
