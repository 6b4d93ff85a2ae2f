"""Memory and speed of single parts of the model: recomputed activations and compiled blocks, chosen per module.

Both act on a part's blocks (its numbered layers), since these are what is repeated: a checkpoint a block keeps one
activation a block, and one compiled block serves all of its kind. Names of weights do not change.
"""

import os
from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from training.recipe import Recipe, RecipeError

TOWERS = {"vision": "vision_model", "projector": "multi_modal_projector", "text": "language_model"}


def prepare_towers(model: nn.Module, recipe: Recipe) -> None:
    """Do what `modules.<name>.gradient_checkpointing` and `.compile` say, before the model is wrapped or sharded.

    Raises:
        RecipeError: a part that has no blocks, or compiling where it cannot work.
    """
    for name, attribute in TOWERS.items():
        part, tower = getattr(recipe.modules, name), getattr(model, attribute, None)
        asked = part.gradient_checkpointing
        if tower is None:
            continue
        wanted = recipe.train.gradient_checkpointing if asked is None else asked
        if wanted and not checkpoint_blocks(tower) and asked:
            raise RecipeError(f"modules.{name}.gradient_checkpointing = true, but the {name} has no blocks")
        if part.compile:
            _check_compiling(name, any(hasattr(parameter, "ds_id") for parameter in model.parameters()))
            if not compile_blocks(tower):
                raise RecipeError(f"modules.{name}.compile = true, but the {name} has no blocks")


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The layers that transformers can checkpoint, each once."""
    return [module for module in tower.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_blocks(tower: nn.Module) -> int:
    """Recompute the activations of every block in the backward pass; returns the number of blocks."""
    blocks = blocks_of(tower)
    if blocks and isinstance(tower, PreTrainedModel):
        tower.gradient_checkpointing_enable({"use_reentrant": False})
    return len(blocks)


def compile_blocks(tower: nn.Module, backend: str | Callable = "inductor") -> int:
    """Compile every block in place, for any number of tokens or patches; returns the number of blocks."""
    blocks = blocks_of(tower)
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
    return len(blocks)


def _check_compiling(name: str, sharded: bool) -> None:
    if sharded:
        raise RecipeError(
            f"modules.{name}.compile and ZeRO-3 do not work together (its hooks gather weights between the operations "
            "that a compiler would fuse): use train.zero=zero2, or leave compile out"
        )
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        raise RecipeError(
            f"modules.{name}.compile = true, but compiling is switched off in this process, as it is by default where "
            "there is no GPU: set TORCHDYNAMO_DISABLE=0 in the environment, or leave compile out"
        )
