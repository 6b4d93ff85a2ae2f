"""LoRA adapters of a stage."""

from torch import nn

from training.recipe import Recipe


def attach_adapters(model: nn.Module, recipe: Recipe) -> nn.Module:
    """The model with the adapters of `recipe.adapter`; the model itself when its rank is 0."""
    if not recipe.adapter.rank:
        return model
    raise NotImplementedError("adapter.rank")
