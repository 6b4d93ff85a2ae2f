"""What a stage leaves: one consolidated safetensors model folder, whatever ZeRO stage trained it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from training.adapters import gather_adapter
from training.durable import flush
from training.precision import written_in_bf16
from vlm.adapted_model import record_of

MAX_SHARD_SIZE = "5GB"


def save_stage(trainer, output: Path) -> None:
    """Write the trained model, its processor and the trainer's state to `output`. Called by every rank."""
    trainer.save_state()
    write_result(trainer, output)


def write_result(trainer, output: Path) -> None:
    """Write the model for its users and its processor to a folder that may hold an earlier one. Called by every rank.

    The files are written aside and then moved, so that no interrupted save leaves a folder that looks whole.
    """
    partial = output / "model.partial"
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted save
    write_model(trainer, partial, final=True)
    if trainer.is_world_process_zero():
        flush(partial)
        for old in [*output.glob("*.safetensors"), *output.glob("*.safetensors.index.json")]:
            old.unlink()  # the new model may have fewer shards
        for path in partial.iterdir():
            if path.is_dir():
                shutil.rmtree(output / path.name, ignore_errors=True)
            os.replace(path, output / path.name)
        partial.rmdir()


def write_model(trainer, folder: Path, final: bool = False) -> None:
    """Write the model and its processor as a loadable folder. Called by every rank; rank 0 writes.

    Args:
        final: a result, for generation and further stages: in bf16 if that is what the stage computes in, and with a
            cache. A checkpoint keeps the fp32 weights it is resumed with.

    Under ZeRO-3 the weights are gathered layer by layer and only rank 0 keeps them, in CPU memory. Otherwise every rank
    has them anyway and nothing is copied.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    gathered = None
    if trainer.args.deepspeed and trainer.args.deepspeed["zero_optimization"]["stage"] == 3:
        engine = trainer.model_wrapped
        adapted = record_of(model) is not None  # then only what trains is written, and gathered
        gathered = gather_adapter(engine, model) if adapted else trainer.accelerator.get_state_dict(engine)
    if not trainer.is_world_process_zero():
        return
    with for_use(model, trainer.args.bf16) if final else nullcontext():
        model.save_pretrained(folder, state_dict=gathered, max_shard_size=MAX_SHARD_SIZE)
    trainer.processing_class.save_pretrained(folder)


@contextmanager
def for_use(model, bf16: bool) -> Iterator[None]:
    """Inside, the model is what its users get: with a cache, which training switches off, and in bf16 if so asked."""
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [getattr(config, "use_cache", True) for config in configs]
    for config in configs:
        config.use_cache = True
    try:
        with written_in_bf16(model) if bf16 else nullcontext():
            yield
    finally:
        for config, value in zip(configs, before):
            config.use_cache = value
