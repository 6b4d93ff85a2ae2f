"""The two layouts of dense features, as in NVlabs/RADIO: a sequence of patches ("NLC") or a map ("NCHW")."""

import torch

FORMATS = ("NLC", "NCHW")


def to_format(features: torch.Tensor, grid: tuple[int, int], feature_fmt: str) -> torch.Tensor:
    """`(B, h*w, D)` as it is ("NLC") or as `(B, D, h, w)` ("NCHW")."""
    if feature_fmt == "NLC":
        return features
    return features.transpose(1, 2).reshape(features.shape[0], features.shape[-1], *grid)
