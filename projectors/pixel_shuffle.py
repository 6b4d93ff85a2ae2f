"""Pixel shuffle: every s x s block of patches becomes one token, then a two-layer head maps it to the LLM's width.

Order of the tokens: `v2` keeps the image's raster order; `v1` leaves the grid transposed (columns first), the bug of
the first InternVL code that its checkpoints keep. Within a token the channels are ordered (row, column, feature).
"""

from functools import lru_cache

import torch

from projectors.mlp_head import MLPHead, head_defaults
from projectors.registry import register_projector

VERSIONS = ("v1", "v2")
ODD_GRIDS = ("reject", "pad")


def shuffle_dense(x: torch.Tensor, downsample: int, version: str = "v2") -> torch.Tensor:
    """`(N, H, W, C) -> (N, H*W/s^2, s^2*C)`; H and W must be multiples of `downsample`."""
    n, h, w, c = x.shape
    s = downsample
    x = x.reshape(n, h // s, s, w // s, s, c)
    x = x.permute(0, 1, 3, 2, 4, 5) if version == "v2" else x.permute(0, 3, 1, 2, 4, 5)
    return x.reshape(n, (h // s) * (w // s), s * s * c)


@lru_cache(maxsize=4096)
def shuffle_index(grid_h: int, grid_w: int, downsample: int, version: str = "v2") -> torch.Tensor:
    """Which patches make which token: `(num_tokens * s^2,)` positions in the raster of one `grid_h` x `grid_w` image.

    Grids that are no multiple of `downsample` are filled up by repeating their last row and column.
    """
    s = downsample
    rows = torch.arange(-(-grid_h // s) * s).clamp(max=grid_h - 1)
    cols = torch.arange(-(-grid_w // s) * s).clamp(max=grid_w - 1)
    raster = rows[:, None] * grid_w + cols[None, :]
    return shuffle_dense(raster[None, :, :, None], s, version).flatten()


def shuffle_packed(
    x: torch.Tensor, grids: list[tuple[int, int]], downsample: int, version: str = "v2"
) -> torch.Tensor:
    """`(total_patches, C) -> (total_tokens, s^2*C)` for images of any sizes laid end to end."""
    h, w = grids[0]
    s = downsample
    if h % s == 0 and w % s == 0 and all(grid == (h, w) for grid in grids):
        return shuffle_dense(x.view(len(grids), h, w, -1), s, version).flatten(0, 1)
    parts, start = [], 0
    for h, w in grids:
        parts.append(shuffle_index(h, w, s, version) + start)
        start += h * w
    index = torch.cat(parts).to(x.device)
    return x[index].view(-1, s * s * x.shape[-1])


@register_projector("pixel_shuffle")
class PixelShuffleProjector(MLPHead):
    """Pixel shuffle followed by an `MLPHead`.

    Config keys beside those of the head: `downsample` (s), `ps_version` ("v1" | "v2"), `odd_grids`: "reject" (default)
    raises for grids that are no multiple of s, "pad" repeats the last row and column and counts the extra tokens.
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
        if not isinstance(config.get("downsample"), int) or config["downsample"] < 1:
            raise ValueError(f"projector_config['downsample'] must be a positive int, got {config.get('downsample')!r}")
        for key, known in (("ps_version", VERSIONS), ("odd_grids", ODD_GRIDS)):
            if config.get(key, known[-1] if key == "ps_version" else known[0]) not in known:
                raise ValueError(f"projector_config[{key!r}] is {config[key]!r}; known: {', '.join(known)}")

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
        return -(-grid_h // s) * -(-grid_w // s)

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """`(total_patches, d_vision)` and the grid of each image -> `(total_tokens, d_text)`."""
        for grid in set(grids):
            self.num_tokens(self.config, *grid)  # raises for grids that are rejected
        version = self.config.get("ps_version", "v2")
        return super().forward(shuffle_packed(features, grids, self.config["downsample"], version))

