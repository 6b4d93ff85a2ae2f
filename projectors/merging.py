"""Token merging: patches that look alike become one token, so a fixed budget goes where a picture has something to say.

The bipartite matching of ToMeSD (arXiv 2303.17604) on the encoder's output, as RADIOv2.5 uses it (arXiv 2412.07679):
one destination per block of stride x stride patches, always its top left one; every other patch is a source and looks
for the destination of largest cosine similarity; the sources most similar to theirs merge into it, by the mean. What
differs: blocks cut off by the right and lower edge have a destination too, so that every region keeps a token, and
tokens stay in raster order, which a recurrent language model reads.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

# Similarities are compared in these steps: rounding errors of the product must not decide between equal patches, which
# blank paper is full of; ties go to what comes first in the raster.
_STEPS = 2.0**16
_MAX_SIMILARITIES = 1 << 24  # of one chunk: 64 MiB


@dataclass(frozen=True)
class Merging:
    """Where the N tokens of B pictures of one grid went; made by `match`.

    `target` (B, N): the output that each input is part of. `places` (B, K), ascending: the input whose place in the
    raster an output has (its destination, or the token itself where nothing merged).
    """

    target: torch.Tensor
    places: torch.Tensor

    def merge(self, x: torch.Tensor, sizes: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, N, C)` -> means `(B, K, C)` and how many patches each stands for `(B, K)`.

        `sizes` (B, N) of earlier merges are weights of the mean, so that the mean of all patches survives repetition. A
        token that nothing merged into comes out exactly as it went in.
        """
        batch, count, width = x.shape
        kept = self.places.shape[1]
        wide = torch.promote_types(x.dtype, torch.float32)
        sizes = x.new_ones(batch, count, dtype=wide) if sizes is None else sizes.to(wide)
        total = sizes.new_zeros(batch, kept).scatter_add(1, self.target, sizes)
        share = sizes / total.gather(1, self.target)  # exactly 1 for a token by itself
        rows = self.target + kept * torch.arange(batch, device=x.device)[:, None]
        out = torch.zeros(batch * kept, width, dtype=wide, device=x.device)
        out = out.index_add(0, rows.flatten(), (x.to(wide) * share[..., None]).flatten(0, 1))
        return out.view(batch, kept, width).to(x.dtype), total

    def unmerge(self, tokens: torch.Tensor) -> torch.Tensor:
        """`(B, K, C) -> (B, N, C)`: every place gets the token it is part of, for dense use."""
        return tokens.gather(1, self.target[..., None].expand(-1, -1, tokens.shape[-1]))


def fitting_stride(grid_h: int, grid_w: int, num_tokens: int, stride: int) -> int:
    """The smallest stride from `stride` on whose destinations are no more than `num_tokens`."""
    while -(-grid_h // stride) * -(-grid_w // stride) > num_tokens:
        stride += 1
    return stride


@lru_cache(maxsize=256)
def _sides(grid_h: int, grid_w: int, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Raster positions of sources and of destinations."""
    chosen = torch.zeros(grid_h, grid_w, dtype=torch.bool)
    chosen[::stride, ::stride] = True
    return (~chosen.flatten()).nonzero()[:, 0], chosen.flatten().nonzero()[:, 0]


def _best(sources: torch.Tensor, destinations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest similarity of every source and the number of that destination, both `(B, S)`, in chunks of sources."""
    destinations = destinations.transpose(1, 2)
    rows = max(1, _MAX_SIMILARITIES // (destinations.shape[0] * destinations.shape[2]))
    found = [torch.matmul(part, destinations).mul_(_STEPS).round_().max(-1) for part in sources.split(rows, dim=1)]
    return torch.cat([values for values, _ in found], 1), torch.cat([places for _, places in found], 1)


@torch.no_grad()
def match(metric: torch.Tensor, grid: tuple[int, int], num_tokens: int, stride: int) -> Merging:
    """Which of the patches merge, so that `num_tokens` are left of each picture.

    Args:
        metric: (B, h*w, C) features that are compared, of pictures of one `grid` (h, w).
        num_tokens: from the number of destinations, see `fitting_stride`, to h*w (nothing merges).
        stride: side of the blocks that keep a destination each.
    """
    (h, w), device = grid, metric.device
    batch, count, _ = metric.shape
    sources, destinations = (side.to(device) for side in _sides(h, w, stride))
    if count != h * w or not len(destinations) <= num_tokens <= count:
        raise ValueError(
            f"cannot merge {count} tokens of a grid of {h}x{w} to {num_tokens}: stride {stride} keeps "
            f"{len(destinations)} destinations"
        )
    raster = torch.arange(count, device=device).expand(batch, -1)
    if num_tokens == count:
        return Merging(raster, raster)
    with torch.autocast(device.type, enabled=False):  # half precision cannot tell neighbours apart
        metric = F.normalize(metric.float(), dim=-1)
        similarity, choice = _best(metric[:, sources], metric[:, destinations])
    merged = similarity.argsort(dim=1, descending=True, stable=True)[:, : count - num_tokens]
    origin, goal = sources[merged], destinations[choice.gather(1, merged)]  # (B, r) raster positions
    kept = torch.ones(batch, count, dtype=torch.bool, device=device).scatter_(1, origin, False)
    rank = kept.cumsum(1) - 1  # outputs are what is kept, in raster order
    return Merging(rank.scatter(1, origin, rank.gather(1, goal)), raster[kept].view(batch, num_tokens))
