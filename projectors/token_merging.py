"""Token merging before the head: a fixed budget of tokens, spent where a picture's patches differ; see `merging.py`."""

import torch

from projectors.merging import Merging, fitting_stride, match
from projectors.mlp_head import MLPHead, head_defaults
from projectors.packed import TakesAnyGrid, map_grids
from projectors.registry import register_projector


def token_budget(config: dict, grid_h: int, grid_w: int) -> int:
    """`keep` of the patches, rounded half up, at most `max_tokens`, at least one."""
    patches, limit = grid_h * grid_w, config.get("max_tokens")
    budget = max(1, int(patches * config.get("keep", 0.25) + 0.5))
    return min(budget, patches if limit is None else limit)


@register_projector("token_merging")
class TokenMergingProjector(TakesAnyGrid, MLPHead):
    """Config keys beside those of the head: `keep` (share of the patches that are left), `max_tokens` (of a picture;
    null: no limit), `stride` (side of the blocks that keep a destination each; it grows until these fit the budget).

    Where tokens stand depends on the picture, so token i of two frames is not the same place.
    """

    count_keys = ("keep", "max_tokens")
    keeps_places = False

    def __init__(self, config: dict, d_vision: int, d_text: int) -> None:
        self.check(config)
        super().__init__(config, d_vision, d_text)
        self.config = dict(config)

    @staticmethod
    def check(config: dict) -> None:
        """Raise ValueError for a config that cannot work."""
        keep = config.get("keep", 0.25)
        if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
            raise ValueError(f"projector_config['keep'] must be a share in (0, 1], got {keep!r}")
        if type(config.get("stride", 3)) is not int or config.get("stride", 3) < 1:
            raise ValueError(f"projector_config['stride'] must be a positive int, got {config['stride']!r}")
        limit = config.get("max_tokens")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ValueError(f"projector_config['max_tokens'] must be a positive int or null, got {limit!r}")

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """A quarter of the patches. Stride 3 reconstructs features best at that budget, over pictures of 6 x 8 to
        32 x 32 patches: 2 leaves no choice, and from 5 on destinations are too far."""
        keys = {"type": "token_merging", "keep": 0.25, "max_tokens": None, "stride": 3}
        return keys | head_defaults("nemotron", d_text)

    @staticmethod
    def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
        """The budget, exactly."""
        return token_budget(config, grid_h, grid_w)

    def match(self, features: torch.Tensor, grid: tuple[int, int]) -> Merging:
        """How pictures `(B, h*w, d_vision)` of one grid merge; its `unmerge` takes tokens back to all places."""
        budget = token_budget(self.config, *grid)
        return match(features, grid, budget, fitting_stride(*grid, budget, self.config.get("stride", 3)))

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """`(total_patches, d_vision)` and the grid of each image -> `(total_tokens, d_text)`, in raster order."""
        return super().forward(map_grids(lambda x, grid: self.match(x, grid).merge(x)[0], features, grids))
