"""One linear layer a patch, as in the first LLaVA; normed before, since RADIO's features are far from unit size."""

from projectors.mlp_head import head_defaults
from projectors.patch_head import PatchHead
from projectors.registry import register_projector


@register_projector("linear")
class LinearProjector(PatchHead):
    """`(total_patches, d_vision) -> (total_patches, d_text)`; config keys as in `MLPHead`, `norm` null for none."""

    count_keys = ()

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """LayerNorm and one layer with a bias."""
        return {"type": "linear", **head_defaults("linear", d_text)}
