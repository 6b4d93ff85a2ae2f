"""The projector registry: a decorator in the projector's own file puts it here; nothing else needs to know its name.

A projector is an `nn.Module` class with
* `__init__(config: dict, d_vision: int, d_text: int)`,
* `forward(features: (total_patches, D), grids: list[tuple[int, int]]) -> (total_tokens, D_llm)`, images end to end,
* `defaults(d_vision: int, d_text: int) -> dict`: the complete projector config when the user says nothing,
* `num_tokens(config: dict, grid_h: int, grid_w: int) -> int`: pure; the one source of truth for placeholder counts.
"""

from collections.abc import Callable

from torch import nn

_PROJECTORS: dict[str, type[nn.Module]] = {}


def register_projector(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: makes the projector available as `projector_config["type"] == name`. Duplicates raise."""

    def decorate(cls: type[nn.Module]) -> type[nn.Module]:
        known = _PROJECTORS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"projector {name!r} is registered twice: {known.__module__} and {cls.__module__}")
        _PROJECTORS[name] = cls
        return cls

    return decorate


def projector_names() -> list[str]:
    """Names of all registered projectors."""
    return sorted(_PROJECTORS)


def get_projector(name: str) -> type[nn.Module]:
    """The projector class of that name; ValueError listing the known ones otherwise."""
    if name not in _PROJECTORS:
        raise ValueError(f"unknown projector {name!r}; known projectors: {', '.join(projector_names())}")
    return _PROJECTORS[name]


def build_projector(config: dict, d_vision: int, d_text: int) -> nn.Module:
    """Instantiate the projector named by `config["type"]` between feature sizes `d_vision` and `d_text`."""
    return get_projector(config["type"])(config, d_vision, d_text)


def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
    """Language-model tokens for a grid of `grid_h` x `grid_w` patches (one image or one video tubelet)."""
    return get_projector(config["type"]).num_tokens(config, grid_h, grid_w)
