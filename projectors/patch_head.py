"""One token a patch: a head over every patch by itself, the base of `mlp` and `linear`."""

import torch

from projectors.mlp_head import MLPHead
from projectors.packed import TakesAnyGrid, check_packed


class PatchHead(TakesAnyGrid, MLPHead):
    """`(total_patches, d_vision) -> (total_patches, d_text)`; config keys as in `MLPHead`."""

    keeps_places = True

    @staticmethod
    def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
        """One token a patch."""
        return grid_h * grid_w

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """Patches stay where they are."""
        check_packed(features, grids)
        return super().forward(features)
