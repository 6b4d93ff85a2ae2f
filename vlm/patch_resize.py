"""Bicubic resize with antialiasing straight into patches: the fast path of the image processor.

The same numbers as `F.interpolate(mode="bicubic", antialias=True)` on floats, to rounding. A resize is a product with
a band matrix along each axis; cut into blocks of one patch, a band is small dense matrices, and what comes out of the
second product already lies as the patches do. A strip of the picture is worked on at a time, so that a huge scan needs
little more memory than its patches. `to_patches(resize(...))` is the slow twin.
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
def bands(size: int, resized: int, block: int) -> tuple[tuple[int, ...], torch.Tensor]:
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
    return tuple(starts.tolist()), torch.from_numpy(weights.astype(np.float32).reshape(-1, block, window))


def exact_dtype() -> torch.dtype:
    """What to multiply in: float32, but float64 where the caller lets float32 products of a model be rounded (bfloat16,
    TF32), which would cost grey levels. Read, not set: others may be computing."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # torch 2.9; before, the function below says it
    precision = getattr(matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return torch.float32 if precision in ("none", "ieee", "highest") else torch.float64


@torch.no_grad()
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
    channels, height, width = image.shape
    tops, down = bands(height, grid_h * patch, patch)
    lefts, across = bands(width, grid_w * patch, patch)
    exact = exact_dtype()
    down, across = down.to(exact), across.to(exact).mT.contiguous()
    if dtype != torch.uint8:
        down = down / 255
    depth, window = down.shape[2], across.shape[1]
    floats = {"dtype": exact, "device": "cpu"}
    view_h, view_w = grid_h // rows, grid_w // cols
    out = torch.empty(rows, cols, view_h, view_w, channels * patch * patch, dtype=dtype, device="cpu")
    is_direct = cols == 1 and dtype == exact

    per_group = max(1, int(STRIP / (channels * width * patch * max(1.0, height / (grid_h * patch)))))
    groups = [(v, y, min(y + per_group, view_h)) for v in range(rows) for y in range(0, view_h, per_group)]
    with torch.autocast("cpu", enabled=False):
        for row, first, end in groups:
            lines = range(row * view_h + first, row * view_h + end)
            top, bottom = tops[lines[0]], tops[lines[-1]] + depth
            strip = torch.empty(channels, bottom - top, width, **floats).copy_(image[:, top:bottom]).flatten(0, 1)
            narrow = torch.empty(grid_w, len(strip), patch, **floats)  # patch column by patch column
            for left, weights, column in zip(lefts, across, narrow):
                torch.mm(strip[:, left : left + window], weights, out=column)
            narrow = narrow.view(grid_w * channels, bottom - top, patch)
            target = out[row, :, first:end]  # (cols, lines, view_w, C*P*P)
            shape = (len(lines), grid_w * channels, patch, patch)
            group = target.view(shape) if is_direct else torch.empty(shape, **floats)
            for line, piece in zip(lines, group):
                start = tops[line] - top
                weights = down[line].expand(len(narrow), patch, depth)
                torch.bmm(weights, narrow[:, start : start + depth], out=piece)
            if dtype == torch.uint8:
                group.round_().clamp_(0, 255)
            elif clamp:
                group.clamp_(0, 1)
            if not is_direct:
                target.copy_(group.view(len(lines), cols, view_w, -1).transpose(0, 1))
    return out.view(grid_h * grid_w, -1)
