"""The projector registry: a decorator in the projector's own file puts it here; nothing else needs to know its name.

A projector is an `nn.Module` class with
* `__init__(config: dict, d_vision: int, d_text: int)`,
* `forward(features: (total_patches, D), grids: list[tuple[int, int]]) -> (total_tokens, D_llm)`, images end to end,
* `defaults(d_vision: int, d_text: int) -> dict`: the complete projector config when the user says nothing,
* `num_tokens(config: dict, grid_h: int, grid_w: int) -> int`: pure; tokens of the patches,
and, where the general answer is wrong for it,
* `grid_multiple(config: dict) -> int`: sides of the grids it accepts are multiples of this (else: `downsample`, or 1),
* `count_keys: tuple[str, ...]`: the config keys that decide counts (else: those of pixel shuffle),
* `keeps_places: bool`: token i stands for the same place in every picture of one grid (else: True).
The functions below add what is the same for all of them: `config["summary_tokens"]` class tokens before each picture's
own. Their `num_tokens` is the one source of truth for placeholder counts.
"""

from collections.abc import Callable

import torch
from torch import nn

from projectors.mlp_head import HEADS, head_defaults
from projectors.summary_head import SummaryHead, place_before

_PROJECTORS: dict[str, type[nn.Module]] = {}
# What a missing key counts as, for good: the fingerprints of old checkpoints hold these values.
_COUNT_DEFAULTS = {"downsample": None, "ps_version": "v2", "odd_grids": "reject"}


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


def default_config(config: dict | None, d_vision: int, d_text: int) -> dict:
    """The complete config: what the user says, then what their `head` means, then the projector's own defaults."""
    user = dict(config or {})
    defaults = get_projector(user.get("type", "pixel_shuffle")).defaults(d_vision, d_text)
    if user.get("head") is not None:
        if "head" not in defaults:
            raise ValueError(f"projector_config['head']: the projector {defaults['type']!r} has no head to choose")
        defaults |= head_defaults(user["head"], d_text)
    elif any(key in user for key in HEADS["linear"]):
        defaults.pop("head", None)  # keys that were chosen one by one, or an old checkpoint's: no name for them
    return {**defaults, **user}


def build_projector(config: dict, d_vision: int, d_text: int, d_summary: int | None = None) -> nn.Module:
    """Instantiate the projector named by `config["type"]` between feature sizes `d_vision` and `d_text`.

    With `config["summary_tokens"]` it gets a `summary_head` for class tokens of width `d_summary` (default `d_vision`).
    """
    projector = get_projector(config["type"])(config, d_vision, d_text)
    if config.get("summary_tokens"):
        projector.summary_head = SummaryHead(d_summary or d_vision, d_text)
    return projector


def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
    """Language-model tokens for a grid of `grid_h` x `grid_w` patches (one image or one video tubelet)."""
    return config.get("summary_tokens", 0) + get_projector(config["type"]).num_tokens(config, grid_h, grid_w)


def grid_multiple(config: dict) -> int:
    """Sides of the grids that the projector accepts are multiples of this; 1: any grid."""
    cls = get_projector(config.get("type", "pixel_shuffle"))
    own = getattr(cls, "grid_multiple", None)
    return own(config) if own is not None else config.get("downsample", 1)


def keeps_places(config: dict) -> bool:
    """Whether token i stands for the same place in every picture of one grid: what pruning and averaging of video
    tokens over time need."""
    return getattr(get_projector(config.get("type", "pixel_shuffle")), "keeps_places", True)


def count_facts(config: dict) -> dict:
    """Everything of the config that decides how many tokens a grid becomes: part of the fingerprint that processor and
    model compare. `summary_tokens` only where there are some, so that other fingerprints stay what they were."""
    kind = config.get("type", "pixel_shuffle")
    cls = get_projector(kind)
    keys = getattr(cls, "count_keys", tuple(_COUNT_DEFAULTS))
    defaults = cls.defaults(1, 1)
    if keys == tuple(_COUNT_DEFAULTS):  # fingerprints of the first format: what is not said was written as None
        defaults |= _COUNT_DEFAULTS
    facts = {"type": kind, **{key: config.get(key, defaults.get(key)) for key in keys}}
    if config.get("summary_tokens"):
        facts["summary_tokens"] = config["summary_tokens"]
    return facts


def project(
    projector: nn.Module,
    config: dict,
    features: torch.Tensor,
    grids: list[tuple[int, int]],
    summary: torch.Tensor | None = None,
) -> torch.Tensor:
    """All tokens `(total, d_text)` of pictures laid end to end, as many each as `num_tokens` says.

    Args:
        features: (total_patches, d_vision). grids: of each picture.
        summary: (pictures, summary_tokens, d_summary), where the config has such.
    """
    tokens = projector(features, grids)
    extra = config.get("summary_tokens", 0)
    if not extra:
        return tokens
    counts = [num_tokens(config, *grid) - extra for grid in grids]
    return place_before(projector.summary_head(summary), tokens, counts)
