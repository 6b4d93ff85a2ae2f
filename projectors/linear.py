"""One linear layer a patch, as in the first LLaVA; normed before, since RADIO's features are far from unit size."""

import torch

from projectors.mlp_head import MLPHead, head_defaults
from projectors.packed import check_packed
from projectors.registry import register_projector


@register_projector("linear")
class LinearProjector(MLPHead):
    """`(total_patches, d_vision) -> (total_patches, d_text)`; config keys as in `MLPHead`, `norm` null for none."""

    count_keys = ()
    keeps_places = True

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """LayerNorm and one layer with a bias."""
        return {"type": "linear", **head_defaults("linear", d_text)}

    @staticmethod
    def grid_multiple(config: dict) -> int:
        """Any grid."""
        return 1

    @staticmethod
    def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
        """One token a patch."""
        return grid_h * grid_w

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """Patches stay where they are."""
        check_packed(features, grids)
        return super().forward(features)
