"""One training stage from its recipe to a model folder: the function behind training/stage1.py ... stage4.py.

    deepspeed --num_accelerators 2 training/stage2.py --config training/recipes/tiny/stage2.yaml learning_rate=3e-4

The same file runs on CPU processes and GPUs; without a launcher it trains in one process and without DeepSpeed.
"""

import json
import sys
import time
from pathlib import Path

from training.environment import (
    Machine,
    avoid_start_up_builds,
    limit_threads,
    prepare_process,
    quiet_libraries,
    stage_logger,
)
from training.recipe import Recipe, RecipeError
from training.recipe_loading import help_text, load_recipe, to_dict

ZERO_FOLDER = Path(__file__).parent / "zero"


def run_stage(argv: list[str], default_config: str | None = None) -> int:
    """Run the stage that the command line describes. Returns the exit code.

    Args:
        argv: `--config FILE`, `--local_rank N` (added by launchers), `key=value` words.
        default_config: recipe used when no --config is given.
    """
    config, local_rank, words, wants_help = _parse(argv, default_config)
    chosen = any(word.partition("=")[0] == "--config" for word in argv)
    nothing_asked = not chosen and not words  # would overwrite the stage of a finished run unasked
    if wants_help or nothing_asked:
        (sys.stdout if wants_help else sys.stderr).write(help_text(sys.argv[0]) + "\n")
        return 0 if wants_help else 2
    try:
        recipe = load_recipe(config, words)
        recipe.check_runnable()
    except RecipeError as error:
        sys.stderr.write(f"{config}: {error}\n" if config else f"{error}\n")
        return 2
    machine = prepare_process(local_rank)
    from vlm.errors import RadioVLMError

    try:
        train_stage(recipe, machine, title=Path(config).stem if config else "stage")
    except (RecipeError, RadioVLMError) as error:  # mistakes of the recipe or the data: a message, no traceback
        stage_logger(machine).error(f"{type(error).__name__}: {error}")
        return 1
    return 0


def _parse(argv: list[str], default_config: str | None) -> tuple[str | None, int | None, list[str], bool]:
    config, local_rank, words, wants_help = default_config, None, [], False
    rest = iter(argv)
    for word in rest:
        flag, _, value = word.partition("=")
        if flag in ("--config", "--local_rank", "--local-rank"):
            value = value or next(rest, "")
            if flag == "--config":
                config = value
            else:
                local_rank = int(value)
        elif word in ("-h", "--help"):
            wants_help = True
        else:
            words.append(word)
    return config, local_rank, words, wants_help


def train_stage(recipe: Recipe, machine: Machine, title: str = "stage") -> dict:
    """Build everything, train, save. Returns what went to throughput.json. Called by every rank."""
    started = time.perf_counter()
    quiet_libraries()
    logger = stage_logger(machine)
    limit_threads(machine, recipe.train.threads_per_rank)
    output = Path(recipe.output_dir)
    output.mkdir(parents=True, exist_ok=True)

    args = _training_arguments(recipe, machine)  # before the model: under ZeRO-3 it must be built in shards
    from training.callbacks import Clock, CompleteMark, HeldOut, Progress, newest_checkpoint
    from training.freezing import (
        apply_freezing,
        format_table,
        new_token_ids,
        save_table,
        train_rows_only,
        trainable_table,
    )
    from training.loading import build_data, load_model, measure_heldout
    from training.optimizers import build_param_groups, check_tags
    from training.trainer import StageTrainer

    model, processor = load_model(recipe, args)
    row_table = apply_freezing(model, recipe.modules)
    groups = build_param_groups(model, recipe, row_table)
    if row_table is not None:
        rows = new_token_ids(model, processor.tokenizer)
        train_rows_only(row_table, rows)
        group = next(group for group in groups if group["name"] == "new_embeddings/other")
        group["rows_parameters"] = len(rows) * model.get_input_embeddings().embedding_dim
    table = trainable_table(model, groups)
    logger.info(format_table(table))
    dataset, loader, heldout = build_data(recipe, processor, machine)

    trainer = StageTrainer(recipe=recipe, groups=groups, loader=loader, model=model, args=args, train_dataset=dataset,
                           processing_class=processor, callbacks=[])  # fmt: skip
    clock = trainer.throughput
    for callback in _library_callbacks():
        trainer.remove_callback(callback)
    if heldout:
        trainer.add_callback(HeldOut(lambda: measure_heldout(trainer.model, heldout, loader, recipe, machine), output))
    trainer.add_callback(Clock(clock, recipe.train.max_seconds))
    trainer.add_callback(Progress(clock, title, machine.world_size))
    trainer.add_callback(CompleteMark())
    if machine.is_main:
        if recipe.train.tensorboard:
            trainer.add_callback(_tensorboard(output / "tensorboard"))
        save_table(table, output)
        (output / "recipe.json").write_text(json.dumps(to_dict(recipe), indent=1) + "\n", encoding="utf-8")
    check_tags(groups)

    resume = newest_checkpoint(output) if recipe.resume is True else (recipe.resume or None)
    if resume:
        logger.info(f"resuming from {resume}")
    elif machine.is_main:
        dataset.bad.start_over()
    built = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)

    saving = time.perf_counter()
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = True  # off while training; what is saved is for generation and further turns
    trainer.save_model(str(output))
    trainer.save_state()
    record = clock.read(machine.world_size) | {
        "build_seconds": round(built - started, 2),
        "start_seconds": round(clock.started - built, 2),
        "save_seconds": round(time.perf_counter() - saving, 2),
        "data": dataset.report(),
    }
    if machine.is_main:
        (output / "throughput.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (output / "training_args.bin").unlink(missing_ok=True)  # a pickle of our arguments; recipe.json says the same
        logger.info(f"{title}: {record['steps']} steps, {record['seconds']:.1f} s, saved to {output}")
    _finish()
    return record


def _library_callbacks() -> list[type]:
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    return [PrinterCallback, ProgressCallback]


def _tensorboard(folder: Path):
    """The library's tensorboard callback with our folder (its own choice is settable by environment only)."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


def _training_arguments(recipe: Recipe, machine: Machine):
    """TrainingArguments of a recipe; also starts the process group."""
    from transformers import TrainingArguments

    train = recipe.train
    deepspeed = None
    if train.zero != "none" and machine.launched:
        avoid_start_up_builds()
        deepspeed = deepspeed_config(recipe)
    schedule = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}.get(train.schedule, train.schedule)
    decay = {"num_decay_steps": max(1, train.max_steps // 5)} if train.schedule == "wsd" else None
    args = TrainingArguments(
        output_dir=recipe.output_dir,
        max_steps=train.max_steps,
        per_device_train_batch_size=train.per_device_batch_size,
        gradient_accumulation_steps=recipe.accumulation(machine.world_size),
        learning_rate=train.learning_rate,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs=decay,
        warmup_steps=round(train.warmup_ratio * train.max_steps),
        max_grad_norm=0.0 if recipe.uses_muon() else train.max_grad_norm,  # with Muon our optimizer clips by itself
        bf16=uses_bf16(recipe, machine),
        use_cpu=machine.device == "cpu",
        deepspeed=deepspeed,
        gradient_checkpointing=train.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if machine.device == "cpu" and machine.launched and deepspeed is None else None,
        logging_steps=train.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps" if train.save_steps else "no",
        save_steps=train.save_steps or 500,
        save_total_limit=train.save_total_limit,
        report_to=[],
        remove_unused_columns=False,
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
    if recipe.uses_muon():
        config["zero_optimization"]["reduce_scatter"] = False  # Muon needs whole matrices on every rank
    return config


def uses_bf16(recipe: Recipe, machine: Machine) -> bool:
    """bf16 where the recipe asks for it, or by itself on GPUs that can."""
    if recipe.train.precision != "auto":
        return recipe.train.precision == "bf16"
    import torch

    return machine.device == "cuda" and torch.cuda.is_bf16_supported()


def _finish() -> None:
    """Leave the process group in order, so that no rank reports a lost peer at exit."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
