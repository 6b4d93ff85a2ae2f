"""Features of chosen blocks, alone ("sparse") or averaged over the blocks up to them ("dense").

Dense aggregation is that of the Dense Connector (Yao et al., arXiv 2405.13800) as RADIO applies it, with its optional
normalizer of intermediate features; definitions follow NVlabs/RADIO's `forward_intermediates`.
"""

from typing import NamedTuple

import torch
from torch import nn

from encoders.feature_normalizers import IntermediateNormalizer

AGGREGATIONS = ("sparse", "dense")
ALPHA_SCHEMES = ("post-alpha", "pre-alpha", "none")


class IntermediateOutput(NamedTuple):
    """One chosen block: `summary` (B, S*D) and `features` (B, L, D) or (B, D, h, w)."""

    summary: torch.Tensor
    features: torch.Tensor


def take_indices(indices: int | list[int] | tuple[int, ...], depth: int) -> list[int]:
    """Ascending block numbers, each once: the last n of them for an int; negative numbers count from the end."""
    if isinstance(indices, int) and not isinstance(indices, bool):
        if not 1 <= indices <= depth:
            raise ValueError(f"indices={indices}: there are {depth} blocks to take the last of")
        return list(range(depth - indices, depth))
    if not isinstance(indices, (list, tuple)) or not indices:
        raise ValueError(f"indices={indices!r}: give block numbers 0..{depth - 1}, or how many of the last blocks")
    wrong = [i for i in indices if not isinstance(i, int) or isinstance(i, bool) or not -depth <= i < depth]
    if wrong:
        raise ValueError(f"indices {wrong}: blocks are numbered 0..{depth - 1} (or -{depth}..-1)")
    return sorted({i % depth for i in indices})


class IntermediateCollector:
    """Is called with the tokens `(B, T, D)` after every block and keeps what was asked for in `outputs`.

    Args:
        indices: as for `take_indices`.
        aggregation: "sparse": the block itself; "dense": mean over the blocks since the previous index.
        normalizer: applied to patch tokens; None: nothing is.
        norm_alpha_scheme: whether a group is scaled after averaging ("post-alpha"), block by block ("pre-alpha"), or
            not normalised at all ("none").
        norm: applied to each output last.
        is_patch: `(T,)`, False for class and register tokens.
    """

    def __init__(
        self,
        depth: int,
        indices: int | list[int] | tuple[int, ...],
        aggregation: str = "sparse",
        normalizer: IntermediateNormalizer | None = None,
        norm_alpha_scheme: str = "post-alpha",
        norm: nn.Module | None = None,
        is_patch: torch.Tensor | None = None,
    ) -> None:
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation={aggregation!r}; known: {', '.join(AGGREGATIONS)}")
        if norm_alpha_scheme not in ALPHA_SCHEMES:
            raise ValueError(f"norm_alpha_scheme={norm_alpha_scheme!r}; known: {', '.join(ALPHA_SCHEMES)}")
        self.indices = take_indices(indices, depth)
        self.dense = aggregation == "dense"
        self.normalizer = None if norm_alpha_scheme == "none" else normalizer
        self.scale_after = norm_alpha_scheme == "post-alpha"
        self.norm, self.is_patch = norm, is_patch
        self.outputs: list[torch.Tensor] = []
        self._sum, self._alphas, self._count = 0, 0, 0

    def __call__(self, index: int, tokens: torch.Tensor) -> None:
        if len(self.outputs) == len(self.indices):
            return  # blocks after the last one asked for
        target = self.indices[len(self.outputs)]
        if not self.dense:
            if index == target:
                y, alpha = self._normalize(tokens, index, index)
                self._keep(alpha * y)
            return
        # the whole group is rotated like its last block
        y, alpha = self._normalize(tokens, index, target)
        self._sum = self._sum + (y if self.scale_after else alpha * y)
        self._alphas = self._alphas + (alpha if self.scale_after else 1)
        self._count += 1
        if index == target:
            self._keep((self._alphas / self._count) * self._sum / self._count)
            self._sum, self._alphas, self._count = 0, 0, 0

    def _normalize(self, tokens: torch.Tensor, layer: int, rotation_of: int) -> tuple[torch.Tensor, torch.Tensor | int]:
        if self.normalizer is None:
            return tokens, 1
        return self.normalizer.normalize(tokens, layer, rotation_of, self.is_patch)

    def _keep(self, tokens: torch.Tensor) -> None:
        self.outputs.append(tokens if self.norm is None else self.norm(tokens))
