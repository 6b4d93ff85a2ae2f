"""The callbacks of a stage, in the order in which they act."""

from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from training.data_loading import measure_heldout
from training.environment import Machine
from training.recipe import Recipe
from training.watch.heldout import HeldOut
from training.watch.progress import Progress
from training.watch.throughput import Clock


def stage_callbacks(trainer, recipe: Recipe, machine: Machine, heldout: dict, title: str) -> list[TrainerCallback]:
    """What watches a stage. Also removes the library's own printers from `trainer`."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    output, clock = Path(recipe.output_dir), trainer.throughput
    callbacks = []
    if heldout:
        callbacks.append(
            HeldOut(lambda: measure_heldout(trainer.model, heldout, trainer.loader, recipe, machine), output)
        )
    callbacks += [Clock(clock, recipe.train.max_seconds), Progress(clock, title, machine.world_size)]
    if machine.is_main and "tensorboard" in recipe.watch.report_to:
        callbacks.append(_tensorboard(output / "tensorboard"))
    return callbacks


def _tensorboard(folder: Path):
    """The library's tensorboard callback with our folder (its own choice is settable by environment only)."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))
