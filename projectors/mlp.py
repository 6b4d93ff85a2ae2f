"""The LLaVA projector: one token a patch, LayerNorm/GELU head by default; no compression, so short pictures only."""

from projectors.mlp_head import head_defaults
from projectors.patch_head import PatchHead
from projectors.registry import register_projector


@register_projector("mlp")
class MLPProjector(PatchHead):
    """`(total_patches, d_vision) -> (total_patches, d_text)`; config keys as in `MLPHead`."""

    count_keys = ("downsample", "ps_version", "odd_grids")  # of which it has one: old fingerprints hold all three

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """LLaVA 1.5: hidden size of the language model, GELU, biases."""
        return {"type": "mlp", "downsample": 1, **head_defaults("llava", d_text)}
