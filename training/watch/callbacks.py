"""The callbacks of a stage, in the order in which they act."""

from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from training.data_loading import measure_heldout
from training.environment import Machine
from training.recipe import Recipe
from training.watch.bad_loss import BadLossMemory
from training.watch.features import EncoderFeatures
from training.watch.figures import Figures, group_rates
from training.watch.heldout import HeldOut
from training.watch.predictions import Predictions
from training.watch.progress import Progress
from training.watch.questions import choose_questions
from training.watch.reporters import reporters
from training.watch.throughput import Clock
from training.watch.work import batch_flops, peak_tflops


def stage_callbacks(trainer, recipe: Recipe, machine: Machine, heldout: dict, title: str) -> list[TrainerCallback]:
    """What watches a stage. Also removes the library's own printers from `trainer`."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    output, clock, model = Path(recipe.output_dir), trainer.throughput, trainer.model
    distillation = trainer.distillation
    reporting = reporters(recipe.watch.report_to, output, trainer.args) if machine.is_main else []
    clock.flops, clock.peak_tflops = batch_flops(model), peak_tflops(trainer.args.device, recipe.watch.peak_tflops)
    callbacks = []
    if heldout:
        callbacks.append(
            HeldOut(lambda: measure_heldout(trainer.model, heldout, trainer.loader, recipe, machine), output)
        )
    callbacks += [
        Clock(clock, recipe.train.max_seconds),
        EncoderFeatures(model, output, trainer.args.device),
        Figures(
            clock,
            trainer.source_losses.read,
            lambda: group_rates(trainer.optimizer),
            trainer.loader.report,
            dict if distillation is None else lambda: distillation.read(trainer.args.device),
        ),
        Progress(clock, title, recipe.train.max_seconds),
        *reporting,
    ]
    if recipe.watch.predictions_every:
        board = next((callback for callback in reporting if isinstance(callback, TensorBoardCallback)), None)
        questions = choose_questions(
            _pools(trainer, heldout), trainer.processing_class, recipe.watch.predictions, recipe.data.max_length
        )
        callbacks.append(
            Predictions(
                lambda: trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, questions,
                recipe.watch.predictions_every, output, clock, machine.rank, title,
                autocast=trainer.accelerator.autocast, writer=lambda: getattr(board, "tb_writer", None),
            )
        )  # fmt: skip
    callbacks.append(BadLossMemory(trainer.bad_loss))
    return callbacks


def _pools(trainer, heldout: dict) -> dict:
    """Name -> samples to ask about: the held-out ones, else those of the training set (streams have none to pick)."""
    datasets = heldout or {"train": trainer.train_dataset}
    return {name: dataset.samples for name, dataset in datasets.items() if getattr(dataset, "samples", None)}
