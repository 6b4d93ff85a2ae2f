"""The way of a picture's class tokens to the language model: a small head of their own, and a place before its patches.

Class tokens are no patches: a projector that folds a grid cannot take them. They keep their number, so a picture with
`summary_tokens` in its projector config costs that many tokens more.
"""

import torch
from torch import nn

from projectors.mlp_head import Float32LayerNorm


class SummaryHead(nn.Module):
    """`(N, S, d_in) -> (N, S, d_out)`: LayerNorm, then one linear layer shared by all class tokens."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.layer_norm = Float32LayerNorm(d_in)
        self.linear = nn.Linear(d_in, d_out)

    def forward(self, summary: torch.Tensor) -> torch.Tensor:
        return self.linear(self.layer_norm(summary))


def place_before(summary: torch.Tensor, patches: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Summary tokens `(N, S, D)` before the tokens `(sum of counts, D)` of their own picture: `(N*S + total, D)`."""
    pieces = []
    for own, picture in zip(summary, patches.split(counts), strict=True):
        pieces += [own, picture]
    return torch.cat(pieces)
