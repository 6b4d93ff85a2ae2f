"""A recipe as transformers' TrainingArguments and as a DeepSpeed configuration."""

import json
from pathlib import Path

from training.environment import Machine, avoid_start_up_builds
from training.recipe import Recipe, RecipeError

ZERO_FOLDER = Path(__file__).parent / "zero"


def training_arguments(recipe: Recipe, machine: Machine, universal: bool = False):
    """TrainingArguments of a recipe; also starts the process group.

    Args:
        universal: DeepSpeed shall read the checkpoint to resume from in its universal form.
    """
    from transformers import TrainingArguments

    train = recipe.train
    deepspeed = None
    if train.zero != "none" and machine.launched:
        avoid_start_up_builds()
        deepspeed = deepspeed_config(recipe)
        # Sending gradients beside the backward pass needs streams, which a CPU has not.
        deepspeed["zero_optimization"].setdefault("overlap_comm", machine.device == "cuda")
        if universal:
            deepspeed["checkpoint"] = deepspeed.get("checkpoint", {}) | {"load_universal": True}
    args = TrainingArguments(
        output_dir=recipe.output_dir,
        max_steps=train.max_steps,
        per_device_train_batch_size=train.per_device_batch_size,
        gradient_accumulation_steps=recipe.accumulation(machine.world_size),
        learning_rate=train.learning_rate,
        lr_scheduler_type="constant",  # unused: the trainer has training.schedules
        max_grad_norm=0.0 if recipe.uses_muon() else train.max_grad_norm,  # with Muon our optimizer clips by itself
        bf16=uses_bf16(recipe, machine),
        use_cpu=machine.device == "cpu",
        deepspeed=deepspeed,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if machine.device == "cpu" and machine.launched and deepspeed is None else None,
        logging_steps=train.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps" if train.save_steps else "no",
        save_steps=train.save_steps or 500,
        save_total_limit=None,  # the library counts torn checkpoints; training.checkpoints removes old ones
        report_to=[],
        remove_unused_columns=False,
        ignore_data_skip=True,  # the loader's own position is restored instead
        label_names=["labels"],
        disable_tqdm=True,
        seed=recipe.seed,
        data_seed=recipe.seed,
    )
    _ = args.device  # starts the process group
    if deepspeed is not None:
        import deepspeed as library

        library.init_distributed(verbose=False)  # on CPU accelerate starts torch's group only; ZeRO-3 asks DeepSpeed's
    return args


def zero_stage(recipe: Recipe, machine: Machine) -> int:
    """ZeRO stage that a launch of the recipe has; 0 without DeepSpeed."""
    if recipe.train.zero == "none" or not machine.launched:
        return 0
    return deepspeed_config(recipe)["zero_optimization"]["stage"]


def deepspeed_config(recipe: Recipe) -> dict:
    """The DeepSpeed configuration a recipe names, checked against it."""
    zero = recipe.train.zero
    path = Path(zero) if zero.endswith(".json") else ZERO_FOLDER / f"{zero}.json"
    if not path.is_file():
        raise RecipeError(f"train.zero: DeepSpeed configuration {path} does not exist")
    config = json.loads(path.read_text(encoding="utf-8"))
    if "optimizer" in config:
        raise RecipeError(
            f'{path} has an "optimizer" block, which flattens the recipe\'s per-module groups: remove it and set '
            "train.optimizer and modules.<name>.lr instead"
        )
    zero_options = config.get("zero_optimization", {})
    if not zero_options.get("stage"):
        raise RecipeError(f'{path} has no "zero_optimization" with a stage of 1, 2 or 3; for none set train.zero=none')
    if recipe.uses_muon() and "offload_optimizer" in zero_options:
        raise RecipeError(
            f"{path} moves the optimizer to the CPU and optimizer = muon needs whole matrices where it steps: use "
            "train.zero=zero2 or train.optimizer=adamw"
        )
    if recipe.uses_muon():
        zero_options["reduce_scatter"] = False  # Muon needs whole matrices on every rank
    return config


def uses_bf16(recipe: Recipe, machine: Machine) -> bool:
    """bf16 where the recipe asks for it, or by itself on GPUs that can."""
    if recipe.train.precision != "auto":
        return recipe.train.precision == "bf16"
    import torch

    return machine.device == "cuda" and torch.cuda.is_bf16_supported()
