"""The LLaVA projector: one token a patch, LayerNorm/GELU head by default; no compression, so short pictures only."""

import torch

from projectors.mlp_head import MLPHead, head_defaults
from projectors.packed import check_packed
from projectors.registry import register_projector


@register_projector("mlp")
class MLPProjector(MLPHead):
    """`(total_patches, d_vision) -> (total_patches, d_text)`; config keys as in `MLPHead`."""

    count_keys = ("downsample", "ps_version", "odd_grids")  # of which it has one: old fingerprints hold all three
    keeps_places = True

    def __init__(self, config: dict, d_vision: int, d_text: int) -> None:
        super().__init__(config, d_vision, d_text)
        self.config = dict(config)

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """LLaVA 1.5: hidden size of the language model, GELU, biases."""
        return {"type": "mlp", "downsample": 1, **head_defaults("llava", d_text)}

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
