"""Folding blocks of patches into tokens: every s x s block becomes one token of s^2 times the channels.

Order of the tokens: `v2` keeps the image's raster order; `v1` leaves the grid transposed (columns first), the bug of
the first InternVL code and of the first VILA code, which their checkpoints keep. Within a token the channels are
ordered (row, column, feature).
"""

from functools import lru_cache

import torch

from projectors.packed import check_packed

VERSIONS = ("v1", "v2")
PADDINGS = ("repeat", "zero")


def check_downsample(config: dict, known: tuple[int, ...] = ()) -> None:
    """Raise ValueError unless `config["downsample"]` is a positive int, one of `known` if there are such."""
    value = config.get("downsample")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (known and value not in known):
        wanted = " or ".join(map(str, known)) or "a positive int"
        raise ValueError(f"projector_config['downsample'] must be {wanted}, got {value!r}")


def check_choice(config: dict, key: str, known: tuple[str, ...], default: str) -> None:
    """Raise ValueError listing the known values, unless `config[key]` is one of them."""
    if config.get(key, default) not in known:
        raise ValueError(f"projector_config[{key!r}] is {config[key]!r}; known: {', '.join(known)}")


def num_blocks(grid_h: int, grid_w: int, downsample: int) -> int:
    """Blocks that cover the grid, those cut off by its edges included."""
    return -(-grid_h // downsample) * -(-grid_w // downsample)


def shuffle_dense(x: torch.Tensor, downsample: int, version: str = "v2") -> torch.Tensor:
    """`(N, H, W, C) -> (N, H*W/s^2, s^2*C)`; H and W must be multiples of `downsample`."""
    n, h, w, c = x.shape
    s = downsample
    x = x.reshape(n, h // s, s, w // s, s, c)
    x = x.permute(0, 1, 3, 2, 4, 5) if version == "v2" else x.permute(0, 3, 1, 2, 4, 5)
    return x.reshape(n, (h // s) * (w // s), s * s * c)


@lru_cache(maxsize=4096)
def shuffle_index(
    grid_h: int, grid_w: int, downsample: int, version: str = "v2", padding: str = "repeat"
) -> torch.Tensor:
    """Which patches make which token: `(num_tokens * s^2,)` positions in the raster of one `grid_h` x `grid_w` image.

    Grids that are no multiple of `downsample` are filled up below and on the right: "repeat" names their last row and
    column again, "zero" gives -1.
    """
    s = downsample
    rows, cols = torch.arange(-(-grid_h // s) * s), torch.arange(-(-grid_w // s) * s)
    raster = rows.clamp(max=grid_h - 1)[:, None] * grid_w + cols.clamp(max=grid_w - 1)[None, :]
    if padding == "zero":
        raster[grid_h:], raster[:, grid_w:] = -1, -1
    return shuffle_dense(raster[None, :, :, None], s, version).flatten()


def shuffle_packed(
    x: torch.Tensor, grids: list[tuple[int, int]], downsample: int, version: str = "v2", padding: str = "repeat"
) -> torch.Tensor:
    """`(total_patches, C) -> (total_tokens, s^2*C)` for images of any sizes laid end to end."""
    check_packed(x, grids)
    h, w = grids[0]
    s = downsample
    if h % s == 0 and w % s == 0 and all(grid == (h, w) for grid in grids):
        return shuffle_dense(x.view(len(grids), h, w, -1), s, version).flatten(0, 1)
    parts, start = [], 0
    for h, w in grids:
        index = shuffle_index(h, w, s, version, padding)
        parts.append(torch.where(index < 0, len(x), index + start))
        start += h * w
    index = torch.cat(parts).to(x.device)
    if padding == "zero":
        x = torch.cat([x, x.new_zeros(1, x.shape[-1])])
    return x[index].view(-1, s * s * x.shape[-1])
