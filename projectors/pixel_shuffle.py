"""Pixel shuffle: every s x s block of patches becomes one token, then a two-layer head maps it to the LLM's width."""

import torch

from projectors.blocks import VERSIONS, check_choice, check_downsample, num_blocks, shuffle_packed
from projectors.mlp_head import MLPHead, head_defaults
from projectors.registry import register_projector

ODD_GRIDS = ("reject", "pad")


@register_projector("pixel_shuffle")
class PixelShuffleProjector(MLPHead):
    """Pixel shuffle followed by an `MLPHead`.

    Config keys beside those of the head: `downsample` (s), `ps_version` ("v1" | "v2", see `blocks.py`), `odd_grids`:
    "reject" (default) raises for grids that are no multiple of s, "pad" repeats the last row and column and counts the
    extra tokens.
    """

    count_keys = ("downsample", "ps_version", "odd_grids")
    keeps_places = True

    def __init__(self, config: dict, d_vision: int, d_text: int) -> None:
        self.check(config)
        super().__init__(config, d_vision * config["downsample"] ** 2, d_text)
        self.config = dict(config)

    @staticmethod
    def check(config: dict) -> None:
        """Raise ValueError for a config that cannot work."""
        check_downsample(config)
        check_choice(config, "ps_version", VERSIONS, "v2")
        check_choice(config, "odd_grids", ODD_GRIDS, "reject")

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """The projector of Nemotron Nano V2 VL, its hidden size scaled with the language model's."""
        keys = {"type": "pixel_shuffle", "downsample": 2, "ps_version": "v2", "odd_grids": "reject"}
        return keys | head_defaults("nemotron", d_text)

    @staticmethod
    def grid_multiple(config: dict) -> int:
        """`downsample`, but any grid where odd ones are padded."""
        return 1 if config.get("odd_grids", "reject") == "pad" else config.get("downsample", 2)

    @staticmethod
    def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
        """Tokens of one image of `grid_h` x `grid_w` patches."""
        s = config.get("downsample", 2)
        if config.get("odd_grids", "reject") == "reject" and (grid_h % s or grid_w % s):
            raise ValueError(
                f"a grid of {grid_h}x{grid_w} patches cannot be shuffled by {s}: set geometry['multiple'] to {s}, or "
                "projector_config['odd_grids'] to 'pad'"
            )
        return num_blocks(grid_h, grid_w, s)

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """`(total_patches, d_vision)` and the grid of each image -> `(total_tokens, d_text)`."""
        for grid in set(grids):
            self.num_tokens(self.config, *grid)  # raises for grids that are rejected
        version = self.config.get("ps_version", "v2")
        return super().forward(shuffle_packed(features, grids, self.config["downsample"], version))

