"""What a finished stage leaves: one consolidated safetensors model folder, whatever ZeRO stage trained it."""

from pathlib import Path


def save_stage(trainer, output: Path) -> None:
    """Write the trained model, its processor and the trainer's state to `output`. Called by every rank."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = True  # off while training; what is saved is for generation and further turns
    trainer.save_model(str(output))
    trainer.save_state()
    if trainer.is_world_process_zero():
        (output / "training_args.bin").unlink(missing_ok=True)  # a pickle of our arguments; recipe.json says the same
