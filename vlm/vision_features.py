"""What of the encoder's output goes to the projector: the last block's features or chosen blocks', class tokens or not.

`config.vision_features`:
* `layers`: None for the encoder's final features (its final norm and PHI-S applied, where the checkpoint has them), or
  numbers of blocks, whose features are laid side by side: the projector's input is that many times wider (the
  intermediate normalizer applied, where the checkpoint has one);
* `aggregation`: "sparse" takes these blocks, "dense" the mean of all blocks since the one taken before;
* `summary`: whether the class tokens of the picture stand before its patches, as tokens of their own;
* `normalize`: "none", or "layer_norm": every feature vector to mean 0 and variance 1, without parameters.
"""

import torch
import torch.nn.functional as F
from torch import nn

from encoders.intermediates import take_indices

DEFAULT_FEATURES = {"layers": None, "aggregation": "sparse", "summary": False, "normalize": "none"}
CHOICES = {"aggregation": ("sparse", "dense"), "summary": (False, True), "normalize": ("none", "layer_norm")}


def check_features(features: dict | None, depth: int) -> dict:
    """`features` with defaults filled in, its blocks ascending and counted from the first of `depth`.

    Raises:
        ValueError: naming the field, its value and the fix.
    """
    unknown = sorted(set(features or {}) - set(DEFAULT_FEATURES))
    if unknown:
        raise ValueError(f"unknown vision_features {unknown}; known: {', '.join(DEFAULT_FEATURES)}")
    full = {**DEFAULT_FEATURES, **(features or {})}
    for key, known in CHOICES.items():
        if full[key] not in known:
            raise ValueError(f"vision_features[{key!r}] is {full[key]!r}; known: {', '.join(map(str, known))}")
    full["summary"] = bool(full["summary"])
    layers = full["layers"]
    if layers is None:
        if full["aggregation"] == "dense":
            raise ValueError("vision_features['aggregation'] is 'dense', but vision_features['layers'] names no blocks")
        return full
    try:
        if not isinstance(layers, (list, tuple)):  # an int would mean the last so many
            raise ValueError
        full["layers"] = take_indices(layers, depth)
    except ValueError:
        raise ValueError(
            f"vision_features['layers'] is {layers!r}: it must be a list of block numbers, and vision_config has "
            f"blocks 0 to {depth - 1}"
        ) from None
    return full


def feature_width(features: dict, hidden_size: int) -> int:
    """Channels of what the projector gets."""
    return hidden_size * len(features["layers"] or (None,))


def picture_features(
    tower: nn.Module,
    features: dict,
    pixels: torch.Tensor | None,
    tubelets: torch.Tensor | None,
    grids: list[tuple[int, int]],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Features `(total_patches, feature_width)` and, on request, class tokens `(pictures, S, D)` of packed pictures."""
    layers, options, waiting = features["layers"], {}, False
    if layers is not None:
        options = {"layers": layers, "aggregation": features["aggregation"]}
        depth = layers[-1] + 1
        # blocks behind the last one asked for run only for class tokens, or where parameters wait for gradients
        behind = (p for module in (*tower.encoder.layer[depth:], tower.final_norm) for p in module.parameters())
        waiting = tower.training and torch.is_grad_enabled() and any(p.requires_grad for p in behind)
        if not features["summary"] and not waiting:
            options["depth"] = depth
    out = tower(pixels, tubelets=tubelets, grids=grids, **options)
    taken = (out.features,) if layers is None else out.intermediates
    if features["normalize"] == "layer_norm":
        taken = [F.layer_norm(x.float(), x.shape[-1:], eps=1e-6) for x in taken]
    joined = taken[0] if len(taken) == 1 else torch.cat(taken, dim=-1)
    if waiting:
        joined = joined + (out.features * 0.0).sum()
    if not features["summary"]:
        return joined, None
    return joined, out.summary.view(len(grids), -1, tower.config.hidden_size)
