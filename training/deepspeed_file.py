"""The DeepSpeed configuration a recipe names: a file of `training/zero`, or a JSON of one's own that is checked here.

Such a JSON may hold anything DeepSpeed knows. What would overrule the recipe, or would lose a run at its end, is
refused or set right before anything is loaded.
"""

import json
from pathlib import Path

from training.recipe import RecipeError

ZERO_FOLDER = Path(__file__).parent / "zero"
BLOCKS = {  # that take the place of parts of the recipe, and what to set instead
    "optimizer": "train.optimizer and modules.<name>.lr",
    "scheduler": "train.schedule, train.warmup_ratio and modules.<name>.lr",
}


def read_deepspeed(zero: str) -> dict:
    """The file behind a `train.zero` other than none: always with a "zero_optimization" that has a stage.

    Raises:
        RecipeError: there is no such file, it is not JSON, or it has no stage.
    """
    path = zero_path(zero)
    if not path.is_file():
        raise RecipeError(f"train.zero: DeepSpeed configuration {path} does not exist")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"train.zero: {path} is not valid JSON: {error}") from None
    options = config.get("zero_optimization") if isinstance(config, dict) else None
    if not isinstance(options, dict) or options.get("stage") not in (1, 2, 3):
        raise RecipeError(f'{path} has no "zero_optimization" with a stage of 1, 2 or 3; for none set train.zero=none')
    return config


def zero_path(zero: str) -> Path:
    return Path(zero) if zero.endswith(".json") else ZERO_FOLDER / f"{zero}.json"


def offloads(config: dict) -> set[str]:
    """What the configuration keeps outside of the GPU: "optimizer", "param"."""
    options = config["zero_optimization"]
    older = {"optimizer": options.get("cpu_offload"), "param": options.get("cpu_offload_param")}  # still understood
    places = {name: (options.get(f"offload_{name}") or {}).get("device", "none") for name in older}
    return {name for name in older if older[name] or places[name] != "none"}


def deepspeed_config(recipe) -> dict:
    """The configuration for a recipe whose train.zero is not none, checked against it.

    Raises:
        RecipeError: as `read_deepspeed`, and for what the recipe decides, or cannot be combined with.
    """
    path, config = zero_path(recipe.train.zero), read_deepspeed(recipe.train.zero)
    options = config["zero_optimization"]
    for block, instead in BLOCKS.items():
        if block in config:
            raise RecipeError(
                f'{path} has a "{block}" block, which overrules the recipe and its per-module groups: remove it and '
                f"set {instead} instead"
            )
    if options["stage"] == 1 and (config.get("data_types") or {}).get("grad_accum_dtype") == "fp32":
        raise RecipeError(
            f'{path} has data_types.grad_accum_dtype = "fp32" with stage 1, for which DeepSpeed takes an optimizer '
            "that does not tell gradients that are not finite: remove it, or take stage 2"
        )
    if options["stage"] == 3:
        if recipe.adapter.quantize is not None:
            raise RecipeError(
                f"adapter.quantize = {recipe.adapter.quantize} and stage 3 of {path} do not work together (quantized "
                "weights cannot be cut into pieces): use train.zero=zero2"
            )
        if compiled := recipe.compiled():
            raise RecipeError(
                f"modules.{compiled[0]}.compile = true and stage 3 of {path} do not work together (its hooks gather "
                "weights between the operations that a compiler would fuse): use train.zero=zero2, or leave compile out"
            )
        options["stage3_gather_16bit_weights_on_model_save"] = True  # else the finished model could not be written
    if recipe.uses_muon():
        if "optimizer" in offloads(config):
            raise RecipeError(
                f"{path} moves the optimizer to the CPU and optimizer = muon needs whole matrices where it steps: use "
                "train.zero=zero2 or train.optimizer=adamw"
            )
        options["reduce_scatter"] = False  # Muon needs whole matrices on every rank
    return config
