"""Bicubic resize with antialiasing straight into patches: the fast path of the image processor.

The same numbers as `F.interpolate(mode="bicubic", antialias=True)` on floats, to rounding. A resize is a product with
a band matrix along each axis; cut into blocks of one patch, a band is small dense matrices, and what comes out of the
second product already lies as the patches do. A strip of the picture is worked on at a time, so that a huge scan needs
little more memory than its patches. `to_patches(resize(...))` is the slow twin.

In numpy: so many small products in torch would each wait for all its threads (many times slower on a busy machine),
and be rounded to bfloat16 where a training script allows that for the products of its model.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

# Above this many pixels `resize` runs one channel at a time: a 178 megapixel scan in float32 is 2 GB at once.
PER_CHANNEL_ABOVE = 16_000_000
STRIP = 1_000_000  # floats of a strip: it stays in the cache, and calls are few
CUBIC = -0.5  # the coefficient `a` of torch (antialias) and Pillow


def resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, 3, H, W) uint8 or float in [0, 255] -> the same at (height, width), float32 unless nothing had to change."""
    if frames.shape[-2:] == (height, width):
        return frames
    parts = frames.split(1, dim=1) if frames[0].numel() > 3 * PER_CHANNEL_ABOVE else [frames]
    size = (height, width)
    resized = [F.interpolate(p.float(), size, mode="bicubic", align_corners=False, antialias=True) for p in parts]
    return torch.cat(resized, dim=1)


def to_patches(frames: torch.Tensor, patch_size: int, rows: int = 1, cols: int = 1) -> torch.Tensor:
    """(N, C, gh*P, gw*P) -> (N, gh*gw, C*P*P): view by view of `rows` x `cols` equal ones in raster order, inside a
    view row-major patches, each channel-major (c, py, px)."""
    n, c, height, width = frames.shape
    grid_h, grid_w = height // patch_size // rows, width // patch_size // cols
    patches = frames.reshape(n, c, rows, grid_h, patch_size, cols, grid_w, patch_size)
    return patches.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(n, rows * cols * grid_h * grid_w, c * patch_size**2)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel at distances `x` in input pixels, 0 from 2 on."""
    x, a = np.abs(x), np.float32(CUBIC)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))


@lru_cache(maxsize=32)
def bands(size: int, resized: int, block: int) -> tuple[tuple[int, ...], np.ndarray]:
    """The resize of one axis from `size` to `resized` pixels, in blocks of `block` output pixels.

    Returns:
        Where the input of each block starts, and its weights (blocks, block, window): block b is
        `weights[b] @ input[start[b] : start[b] + window]`. Rounded as torch rounds: the centre of a pixel is a float32,
        which at a thousand pixels moves a weight by 1e-4.
    """
    scale = np.float32(size) / np.float32(resized)
    support = 2 * max(float(scale), 1.0)
    centers = (float(scale) * (np.arange(resized) + 0.5)).astype(np.float32)[:, None]
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), size)  # exclusive
    starts, ends = first.reshape(-1, block)[:, 0], last.reshape(-1, block)[:, -1]
    window = int((ends - starts).max())
    starts = np.minimum(starts, size - window)
    inputs = np.repeat(starts, block)[:, None] + np.arange(window)
    distances = (inputs - centers + np.float32(0.5)) * np.float32(1 / max(float(scale), 1.0))
    weights = np.where((inputs >= first) & (inputs < last), cubic(distances.astype(np.float32)), np.float32(0))
    weights /= weights.sum(1, keepdims=True)
    return tuple(starts.tolist()), weights.astype(np.float32).reshape(-1, block, window)


def resize_to_patches(
    image: torch.Tensor,
    grid_h: int,
    grid_w: int,
    patch: int,
    rows: int = 1,
    cols: int = 1,
    dtype: torch.dtype = torch.float32,
    clamp: bool = True,
) -> torch.Tensor:
    """(C, H, W) on the CPU, uint8 or float in [0, 255] -> (grid_h * grid_w, C*P*P) patches at the size of the grid.

    Args:
        rows, cols: The picture is cut into so many equal views; their patches follow one another (see `to_patches`).
        dtype: uint8 gives rounded 0..255; a float type [0, 1], overshoot included unless `clamp`.
    """
    pixels = image.detach().numpy()
    channels, height, width = pixels.shape
    is_grey_levels = dtype == torch.uint8
    tops, down = bands(height, grid_h * patch, patch)
    lefts, across = bands(width, grid_w * patch, patch)
    down = down if is_grey_levels else down / np.float32(255)
    across = np.ascontiguousarray(across.transpose(0, 2, 1))
    depth, window = down.shape[2], across.shape[1]
    view_h, view_w = grid_h // rows, grid_w // cols
    out = np.empty((rows, cols, view_h, view_w, channels, patch, patch), np.uint8 if is_grey_levels else np.float32)
    is_direct = cols == 1 and not is_grey_levels

    per_group = max(1, int(STRIP / (channels * width * patch * max(1.0, height / (grid_h * patch)))))
    for row, first in ((row, first) for row in range(rows) for first in range(0, view_h, per_group)):
        end = min(first + per_group, view_h)
        lines = range(row * view_h + first, row * view_h + end)  # of patches, in the whole picture
        top, bottom = tops[lines[0]], tops[lines[-1]] + depth
        strip = pixels[:, top:bottom].astype(np.float32, order="C")
        narrow = np.empty((grid_w, channels, bottom - top, patch), np.float32)  # patch column by patch column
        for left, weights, column in zip(lefts, across, narrow):
            np.matmul(strip[:, :, left : left + window], weights, out=column)
        target = out[row, :, first:end]  # (cols, lines, view_w, C, P, P)
        group = target[0] if is_direct else np.empty((len(lines), grid_w, channels, patch, patch), np.float32)
        for line, piece in zip(lines, group):
            start = tops[line] - top
            np.matmul(down[line], narrow[:, :, start : start + depth], out=piece)
        if is_grey_levels:
            group = np.clip(np.round(group, out=group), 0, 255, out=group)
        elif clamp:
            np.clip(group, 0, 1, out=group)
        if not is_direct:
            target[:] = group.reshape(len(lines), cols, view_w, channels, patch, patch).swapaxes(0, 1)
    return torch.from_numpy(out.reshape(grid_h * grid_w, -1)).to(dtype)
