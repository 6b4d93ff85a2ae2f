"""A small attention resampler: learned queries read a picture of any size into a fixed number of tokens.

The cross attention of Perceiver and Flamingo (arXiv 2103.03206, 2204.14198), one or two layers. Where a patch stands is
added to the keys as sines and cosines of its relative place, so pictures of all sizes share one field of view.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from projectors.mlp_head import Float32LayerNorm
from projectors.packed import TakesAnyGrid, check_packed
from projectors.registry import register_projector

_FIELD = 128  # the place of a picture's far edge: neighbours of RADIO's largest grid are one step apart


@lru_cache(maxsize=256)
def side_positions(side: int, width: int) -> torch.Tensor:
    """`(side, width / 2)` float32: sines, then cosines of the places along one side."""
    frequencies = 10000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = (torch.arange(side) + 0.5)[:, None] * (_FIELD / side) * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def grid_positions(grid_h: int, grid_w: int, width: int) -> torch.Tensor:
    """`(h*w, width)` float32: sines and cosines of the row, then of the column, a quarter of the channels each.

    Sides are kept for later calls, grids are not: a grid of 13,312 patches takes 200 MB at a width of 4,096.
    """
    rows, cols = side_positions(grid_h, width), side_positions(grid_w, width)
    both = [rows[:, None].expand(-1, grid_w, -1), cols[None].expand(grid_h, -1, -1)]
    return torch.cat(both, -1).flatten(0, 1)


class CrossAttentionLayer(nn.Module):
    """Queries `(B, Q, W)` read packed patches `(total, W)`, then an MLP; both added to what the queries hold."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_1, self.norm_2 = Float32LayerNorm(width), Float32LayerNorm(width)
        self.q_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)  # a bias would add the same to all scores of a query
        self.v_proj = nn.Linear(width, width)
        self.linear_1, self.linear_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, N, W) -> (B, heads, N, W / heads)`."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, queries: torch.Tensor, patches: torch.Tensor, positions: torch.Tensor, counts: list[int]
    ) -> torch.Tensor:
        keys, values = self.k_proj(patches + positions), self.v_proj(patches)
        if len(set(counts)) == 1:
            mask, sides = None, [side.view(len(counts), counts[0], -1) for side in (keys, values)]
        else:
            sides = [nn.utils.rnn.pad_sequence(side.split(counts), batch_first=True) for side in (keys, values)]
            lengths = torch.tensor(counts, device=patches.device)
            mask = (torch.arange(max(counts), device=patches.device) < lengths[:, None])[:, None, None]
        q, k, v = (self.heads(x) for x in (self.q_proj(self.norm_1(queries)), *sides))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        queries = queries + self.o_proj(read)
        return queries + self.linear_2(F.gelu(self.linear_1(self.norm_2(queries))))


@register_projector("resampler")
class ResamplerProjector(TakesAnyGrid, nn.Module):
    """Config keys: `num_queries` (tokens of every picture), `layers`, `num_heads`, `hidden_size` (a multiple of 4 and
    of `num_heads`). Any grid."""

    count_keys = ("num_queries",)
    keeps_places = True  # token i is what query i reads: comparable between frames, which is what this is asked for

    def __init__(self, config: dict, d_vision: int, d_text: int) -> None:
        super().__init__()
        self.check(config)
        width = config["hidden_size"]
        self.queries = nn.Parameter(torch.randn(config["num_queries"], width) * 0.02)
        self.input_norm, self.input_proj = Float32LayerNorm(d_vision), nn.Linear(d_vision, width)
        self.patch_norm = Float32LayerNorm(width)
        self.layers = nn.ModuleList(CrossAttentionLayer(width, config["num_heads"]) for _ in range(config["layers"]))
        self.output_norm, self.output_proj = Float32LayerNorm(width), nn.Linear(width, d_text)

    @staticmethod
    def check(config: dict) -> None:
        """Raise ValueError for a config that cannot work."""
        for key in ("num_queries", "layers", "num_heads", "hidden_size"):
            if type(config.get(key)) is not int or config[key] < 1:
                raise ValueError(f"projector_config[{key!r}] must be a positive int, got {config.get(key)!r}")
        if config["hidden_size"] % 4 or config["hidden_size"] % config["num_heads"]:
            raise ValueError(
                f"projector_config['hidden_size'] ({config['hidden_size']}) must be a multiple of 4, which the "
                f"positions need, and of projector_config['num_heads'] ({config['num_heads']})"
            )

    @staticmethod
    def defaults(d_vision: int, d_text: int) -> dict:
        """64 tokens a picture, one layer as wide as the language model (or the next multiple of 64), heads of 64."""
        width = -(-d_text // 64) * 64
        return {
            "type": "resampler",
            "num_queries": 64,
            "layers": 1,
            "num_heads": width // 64,
            "hidden_size": width,
        }

    @staticmethod
    def num_tokens(config: dict, grid_h: int, grid_w: int) -> int:
        """As many as there are queries, for every picture."""
        return config.get("num_queries", 64)

    def forward(self, features: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """`(total_patches, d_vision)` and the grid of each image -> `(pictures * num_queries, d_text)`; pictures of
        other sizes are padded beside each other and masked."""
        check_packed(features, grids)
        patches = self.patch_norm(self.input_proj(self.input_norm(features)))
        positions = torch.cat([grid_positions(h, w, patches.shape[-1]) for h, w in grids]).to(patches)
        queries = self.queries.to(patches.dtype).expand(len(grids), -1, -1)
        for layer in self.layers:
            queries = layer(queries, patches, positions, [h * w for h, w in grids])
        return self.output_proj(self.output_norm(queries)).flatten(0, 1)
