"""Spatial to channel of NVILA: 2 x 2 or 3 x 3 patches side by side in one token (arXiv 2412.04468).

The layers and the layout are those of VILA's `mlp_downsample_2x2_fix` and `mlp_downsample_3x3_fix`; `ps_version` "v1"
gives the transposed tokens of its older `mlp_downsample`. Grids that are no multiple are filled up with zeros below
and on the right, as there.
"""

import torch
import torch.nn.functional as F
from torch import nn

from projectors.blocks import VERSIONS, check_choice, check_downsample, num_blocks, shuffle_packed
from projectors.mlp_head import Float32LayerNorm, MLPHead, head_defaults
from projectors.packed import TakesAnyGrid
from projectors.registry import register_projector


@register_projector("spatial_to_channel")
class SpatialToChannelProjector(TakesAnyGrid, MLPHead):
    """LayerNorm, Linear, GELU, Linear for `downsample` 2; 3 x 3 blocks go through a funnel of 9 C -> 3 C before it.

    Config keys beside those of the head: `downsample` (2 | 3), `ps_version` ("v1" | "v2"). Any grid; one whose sides
    are multiples of `downsample` (`geometry["multiple"]`) spends no token on zeros.
    """

    count_keys = ("downsample", "ps_version")
    keeps_places = True

    def __init__(self, config: dict, d_vision: int, d_text: int) -> None:
        check_downsample(config, (2, 3))
        check_choice(config, "ps_version", VERSIONS, "v2")
        funnel = config["downsample"] == 3
        super().__init__(config, 3 * d_vision if funnel else 4 * d_vision, d_text)
        self.config = dict(config)
        self.funnel_norm = Float32LayerNorm(9 * d_vision, eps=config.get("eps", 1e-5)) if funnel else None
        self.funnel = nn.Linear(9 * d_vision, 3 * d_vision) if funnel else None

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """2 x 2, and VILA's layers."""
        return {"type": "spatial_to_channel", "downsample": 2, "ps_version": "v2", **head_defaults("llava", d_text)}

    @staticmethod
    def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
        """One token a block, blocks filled up with zeros included."""
        return num_blocks(grid_h, grid_w, config.get("downsample", 2))

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """`(total_patches, d_vision)` and the grid of each image -> `(total_tokens, d_text)`."""
        version = self.config.get("ps_version", "v2")
        x = shuffle_packed(features, grids, self.config["downsample"], version, padding="zero")
        if self.funnel is not None:
            x = F.gelu(self.funnel(self.funnel_norm(x)))
        return super().forward(x)
