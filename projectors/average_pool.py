"""Average pooling: the mean of every k x k block of patches, then a head; the cheapest way to fewer tokens."""

import torch
import torch.nn.functional as F

from projectors.blocks import check_downsample, num_blocks
from projectors.mlp_head import MLPHead, head_defaults
from projectors.packed import TakesAnyGrid, map_grids
from projectors.registry import register_projector


def average_pool(x: torch.Tensor, grid: tuple[int, int], k: int) -> torch.Tensor:
    """`(B, h*w, C) -> (B, ceil(h/k) * ceil(w/k), C)`: means over the patches there are, in float32; windows at the
    right and lower edge are smaller where k does not divide the grid."""
    maps = x.view(len(x), *grid, -1).permute(0, 3, 1, 2)
    wide = torch.promote_types(x.dtype, torch.float32)
    means = F.avg_pool2d(maps.to(wide), k, ceil_mode=True, count_include_pad=False)
    return means.flatten(2).transpose(1, 2).to(x.dtype)


@register_projector("average_pool")
class AveragePoolProjector(TakesAnyGrid, MLPHead):
    """Config keys beside those of the head: `downsample` (k). Any grid."""

    count_keys = ("downsample",)
    keeps_places = True

    def __init__(self, config: dict, d_vision: int, d_text: int) -> None:
        check_downsample(config)
        super().__init__(config, d_vision, d_text)
        self.downsample = config["downsample"]

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """2 x 2 patches a token, the head of Nemotron."""
        return {"type": "average_pool", "downsample": 2, **head_defaults("nemotron", d_text)}

    @staticmethod
    def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
        """One token a window."""
        return num_blocks(grid_h, grid_w, config.get("downsample", 2))

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """`(total_patches, d_vision)` and the grid of each image -> `(total_tokens, d_text)`."""
        return super().forward(map_grids(lambda x, grid: average_pool(x, grid, self.downsample), features, grids))
