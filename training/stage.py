"""One training stage from its recipe to a model folder: builds the parts, trains, saves."""

import json
import time
from pathlib import Path

import torch

from training.arguments import training_arguments, zero_stage
from training.environment import Machine, limit_threads, quiet_libraries, stage_logger
from training.recipe import Recipe
from training.recipe.loading import to_dict
from training.watch.reporters import check_reporters


def train_stage(recipe: Recipe, machine: Machine, title: str = "stage") -> dict:
    """Build everything, train, save. Returns what went to throughput.json. Called by every rank.

    Raises:
        Preempted: a signal stopped the stage; a complete checkpoint is there.
    """
    started = time.perf_counter()
    quiet_libraries()
    logger = stage_logger(machine)
    limit_threads(machine, recipe.train.threads_per_rank)
    check_reporters(recipe.watch.report_to)
    output = Path(recipe.output_dir)
    output.mkdir(parents=True, exist_ok=True)

    from training.preemption import Preempted
    from training.resuming import NothingLeft, add_checkpoints, convert, find_resume, load_position

    zero = zero_stage(recipe, machine)
    resume = find_resume(recipe, machine, zero)
    if resume is not None and resume.universal:
        convert(resume, machine)
    # Before the model: under ZeRO-3 it must be built in shards.
    args = training_arguments(recipe, machine, universal=resume is not None and resume.universal)
    from training.adapters import SmallCheckpoints, attach_adapters, finish_adapters
    from training.data_loading import build_data
    from training.distillation.session import open_distillation
    from training.freezing import format_table, save_table
    from training.leaves import mark_leaves
    from training.loading import load_model
    from training.optimizers import check_tags
    from training.saving import save_stage
    from training.trainable import make_trainable
    from training.trainer import StageTrainer
    from training.watch.callbacks import stage_callbacks

    model, processor = load_model(recipe, args)
    model = attach_adapters(model, recipe)
    if zero == 3:
        mark_leaves(model)
    groups, table = make_trainable(model, processor, recipe)
    finish_adapters(model, processor, recipe, args)
    distillation = open_distillation(model, processor, recipe, args)
    logger.info(format_table(table))
    dataset, loader, heldout = build_data(recipe, processor, machine, model)

    trainer = StageTrainer(recipe=recipe, groups=groups, loader=loader, model=model, args=args, train_dataset=dataset,
                           processing_class=processor, callbacks=[], distillation=distillation)  # fmt: skip
    for callback in stage_callbacks(trainer, recipe, machine, heldout, title):
        trainer.add_callback(callback)
    trainer.add_callback(SmallCheckpoints(trainer))
    add_checkpoints(trainer, recipe, machine, resume)
    if machine.is_main:
        save_table(table, output)
        (output / "recipe.json").write_text(json.dumps(to_dict(recipe), indent=1) + "\n", encoding="utf-8")
    check_tags(groups)

    if resume is not None:
        logger.info(f"resuming from {resume.path}")
        load_position(loader, resume, machine)
    elif machine.is_main:
        dataset.bad.start_over()
    built = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=str(resume.path) if resume else None)
    except NothingLeft:
        trainer.control = trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    except Preempted:
        _finish()
        raise

    saving = time.perf_counter()
    save_stage(trainer, output)
    clock = trainer.throughput
    record = clock.read(machine.world_size) | {
        "build_seconds": round(built - started, 2),
        "start_seconds": round(clock.started - built, 2),
        "save_seconds": round(time.perf_counter() - saving, 2),
        "data": dataset.report(),
        **loader.report(),
    }
    if machine.is_main:
        (output / "throughput.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        logger.info(f"{title}: {record['steps']} steps, {record['seconds']:.1f} s, saved to {output}")
    _finish()
    return record


def _finish() -> None:
    """Leave the process group in order, so that no rank reports a lost peer at exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
