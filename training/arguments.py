"""A recipe as transformers' TrainingArguments, with DeepSpeed where a launcher started the process."""

import logging

from training.deepspeed_file import deepspeed_config, offloads
from training.environment import Machine, avoid_start_up_builds
from training.recipe import Recipe, RecipeError

LOGGER = logging.getLogger("training")


def training_arguments(recipe: Recipe, machine: Machine, universal: bool = False):
    """TrainingArguments of a recipe; also starts the process group.

    Args:
        universal: DeepSpeed shall read the checkpoint to resume from in its universal form.
    """
    from transformers import TrainingArguments

    train = recipe.train
    deepspeed = None
    if uses_deepspeed(recipe, machine):
        avoid_start_up_builds()
        deepspeed = deepspeed_config(recipe)
        # Sending gradients beside the backward pass needs streams, which a CPU has not.
        deepspeed["zero_optimization"].setdefault("overlap_comm", machine.device == "cuda")
        if universal:
            deepspeed["checkpoint"] = deepspeed.get("checkpoint", {}) | {"load_universal": True}
    elif train.zero != "none":
        LOGGER.info(f"train.zero = {train.zero}: no launcher started this process, it trains alone without DeepSpeed")
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
    args._n_gpu = min(args._n_gpu, 1)  # or one process would split its batches over all GPUs it sees (DataParallel)
    if deepspeed is not None:
        import deepspeed as library

        library.init_distributed(verbose=False)  # on CPU accelerate starts torch's group only; ZeRO-3 asks DeepSpeed's
    return args


def uses_deepspeed(recipe: Recipe, machine: Machine) -> bool:
    """Whether DeepSpeed trains the recipe: it does in processes that a launcher started, one process included.

    Raises:
        RecipeError: there is no launcher, and the recipe counts on memory that only DeepSpeed makes use of.
    """
    zero = recipe.train.zero
    if zero == "none" or machine.launched:
        return zero != "none"
    if offloads(deepspeed_config(recipe)):
        raise RecipeError(
            f"train.zero = {zero} keeps what does not fit in main memory, which DeepSpeed does and a process without a "
            "launcher does not: start it with `deepspeed --num_accelerators 1 training/stage2.py --config ...` (or "
            "`radio-vlm train`), or set train.zero=none"
        )
    return False


def zero_stage(recipe: Recipe, machine: Machine) -> int:
    """ZeRO stage that a launch of the recipe has; 0 without DeepSpeed. Raises as `uses_deepspeed`."""
    return deepspeed_config(recipe)["zero_optimization"]["stage"] if uses_deepspeed(recipe, machine) else 0


def uses_bf16(recipe: Recipe, machine: Machine) -> bool:
    """bf16 where the recipe asks for it, or by itself on GPUs that can."""
    if recipe.train.precision != "auto":
        return recipe.train.precision == "bf16"
    import torch

    return machine.device == "cuda" and torch.cuda.is_bf16_supported()
