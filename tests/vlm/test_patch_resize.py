"""The fast resize into patches against its slow twin, `to_patches(resize(...))`, which is torch's own on floats."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vlm.patch_resize import bands, resize, resize_to_patches, to_patches

ROOT = Path(__file__).resolve().parents[2]
# (height, width) in pixels, grid, rows and columns of views: up, down, by far, one pixel, strips, odd sizes
CASES = [
    ((1400, 1000), (88, 64), (1, 1)),
    ((37, 53), (4, 6), (2, 3)),
    ((3000, 200), (20, 2), (1, 1)),
    ((1, 1), (2, 2), (1, 1)),
    ((12, 9), (44, 30), (2, 2)),
    ((700, 3000), (8, 24), (2, 3)),
    ((1, 900), (2, 60), (1, 1)),
    ((900, 2), (30, 2), (3, 1)),
    ((64, 97), (4, 6), (1, 2)),
    ((5000, 4000), (6, 4), (3, 1)),
]


def pixels(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def slow(image: torch.Tensor, grid: tuple[int, int], views: tuple[int, int], patch: int = 16) -> torch.Tensor:
    return to_patches(resize(image[None], grid[0] * patch, grid[1] * patch), patch, *views)[0] / 255


@pytest.mark.parametrize(("size", "grid", "views"), CASES)
def test_equals_the_slow_twin(size, grid, views):
    image = pixels(*size)
    expected = slow(image, grid, views)
    kept = resize_to_patches(image, *grid, 16, *views, clamp=False)
    assert kept.shape == expected.shape and (kept - expected).abs().max() <= 3e-6
    assert torch.equal(resize_to_patches(image, *grid, 16, *views), kept.clamp(0, 1))
    grey = resize_to_patches(image, *grid, 16, *views, dtype=torch.uint8)
    levels = (expected * 255).clamp(0, 255)
    assert grey.dtype == torch.uint8 and (grey - levels).abs().max() <= 0.5 + 1e-3
    from_floats = resize_to_patches(image.float(), *grid, 16, *views, clamp=False)
    assert torch.equal(from_floats, kept)
    half = resize_to_patches(image, *grid, 16, *views, dtype=torch.bfloat16, clamp=False)
    assert torch.equal(half, kept.to(torch.bfloat16))


def test_other_patch_sizes():
    image = pixels(100, 77)
    assert (resize_to_patches(image, 6, 4, 14, clamp=False) - slow(image, (6, 4), (1, 1), 14)).abs().max() <= 3e-6


@pytest.mark.parametrize("strip", [1, 30_000, 10**9])
def test_strips_change_nothing(monkeypatch, strip: int):
    image = pixels(300, 200)
    expected = resize_to_patches(image, 20, 12, 16, 2, 2, clamp=False)
    monkeypatch.setattr("vlm.patch_resize.STRIP", strip)
    assert (resize_to_patches(image, 20, 12, 16, 2, 2, clamp=False) - expected).abs().max() <= 1e-6


def test_the_twin_gives_the_same_channel_by_channel(monkeypatch):
    image = pixels(200, 300)[None]
    whole = resize(image, 64, 96)
    monkeypatch.setattr("vlm.patch_resize.PER_CHANNEL_ABOVE", 100)
    assert torch.equal(resize(image, 64, 96), whole)


def test_the_weights_of_an_unchanged_side_are_exact():
    starts, weights = bands(96, 96, 16)
    row = np.arange(96, dtype=np.float32)
    assert np.array_equal(np.concatenate([w @ row[s : s + w.shape[1]] for s, w in zip(starts, weights)]), row)


def test_lower_precision_of_the_caller_is_not_ours():
    """Pixels stay what they are under `set_float32_matmul_precision` and autocast, which a training script may set."""
    image = pixels(140, 100)
    expected = resize_to_patches(image, 10, 6, 16, clamp=False)
    try:
        torch.set_float32_matmul_precision("medium")
        rounded = resize_to_patches(image, 10, 6, 16, clamp=False)
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.autocast("cpu", torch.bfloat16):
        cast = resize_to_patches(image, 10, 6, 16, clamp=False)
    assert torch.equal(rounded, expected) and torch.equal(cast, expected)
    assert (expected.bfloat16() - expected).abs().max() > 1e-3, "rounding would have shown"


def test_a_huge_scan_needs_little_more_memory_than_its_patches():
    """8,000 x 6,000 pixels: 144 MB as they come, 41 MB as patches; as floats at once they would be 576 MB."""
    script = (
        "import torch\n"
        "from vlm.patch_resize import resize_to_patches\n"
        "def peak(name):\n"
        "    return int(next(l for l in open('/proc/self/status') if l.startswith(name)).split()[1]) // 1024\n"
        "image = torch.full((8000, 6000, 3), 7, dtype=torch.uint8).permute(2, 0, 1)\n"
        "resize_to_patches(image[:, :90, :90], 2, 2, 16)\n"
        "before = peak('VmRSS')\n"
        "out = resize_to_patches(image, 132, 100, 16)\n"
        "assert out.shape == (13200, 768) and (out - 7 / 255).abs().max() < 1e-6\n"
        "print(peak('VmHWM') - before)\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 150
