"""What a stage leaves: one consolidated safetensors model folder, whatever ZeRO stage trained it."""

import os
import shutil
from pathlib import Path

MAX_SHARD_SIZE = "5GB"


def save_stage(trainer, output: Path) -> None:
    """Write the trained model, its processor and the trainer's state to `output`. Called by every rank.

    The files are written aside and then moved, so that no interrupted save leaves a folder that looks whole.
    """
    partial = output / "model.partial"
    model = trainer.accelerator.unwrap_model(trainer.model)
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = True  # off while training; what is saved is for generation and further turns
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted save
    write_model(trainer, partial)
    trainer.save_state()
    if trainer.is_world_process_zero():
        for old in [*output.glob("*.safetensors"), *output.glob("*.safetensors.index.json")]:
            old.unlink()  # the new model may have fewer shards
        for path in partial.iterdir():
            if path.is_dir():
                shutil.rmtree(output / path.name, ignore_errors=True)
            os.replace(path, output / path.name)
        partial.rmdir()


def write_model(trainer, folder: Path) -> None:
    """Write the model and its processor as a loadable folder. Called by every rank; rank 0 writes.

    Under ZeRO-3 the weights are gathered layer by layer and only rank 0 keeps them, in CPU memory. Otherwise every rank
    has them anyway and nothing is copied.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    gathered = None
    if trainer.args.deepspeed and trainer.args.deepspeed["zero_optimization"]["stage"] == 3:
        gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        model.save_pretrained(folder, state_dict=gathered, max_shard_size=MAX_SHARD_SIZE)
        trainer.processing_class.save_pretrained(folder)
