"""Encoded samples kept in memory, so that a small corpus is read, decoded and resized once and not once an epoch.

Pixels are kept as bytes where that loses nothing (unresized pictures: a quarter of the memory), else as they are.
"""

import logging

import torch

logger = logging.getLogger(__name__)
PIXEL_KEYS = ("pixel_values", "pixel_values_videos")
INVERSE = 1.0 / 255.0


class EncodedCache:
    """index -> encoded sample. Stops growing at `max_bytes`; what is not kept is simply encoded again."""

    def __init__(self, max_bytes: int = 4 << 30):
        self.max_bytes = max_bytes
        self.bytes = 0
        self.full = False
        self._kept: dict[int, dict] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, index: int) -> dict | None:
        """A fresh dict whose tensors may be shared with the cache: callers replace entries, never write into them."""
        kept = self._kept.get(index)
        if kept is None:
            return None
        return {key: unpack_pixels(value) if isinstance(value, PackedPixels) else value for key, value in kept.items()}

    def put(self, index: int, encoded: dict) -> None:
        if self.full or index in self._kept:
            return
        kept = {key: pack_pixels(value) if key in PIXEL_KEYS else value for key, value in encoded.items()}
        size = sum(_nbytes(value) for value in kept.values())
        if self.bytes + size > self.max_bytes:
            self.full = True
            logger.warning(
                "the sample cache is full at %.1f GB with %d samples; the rest is encoded anew each time",
                self.bytes / 1e9,
                len(self),
            )
            return
        self.bytes += size
        self._kept[index] = kept


class PackedPixels:
    """uint8 pixels and how to get the exact floats back: by division by 255 or by multiplication with 1/255."""

    __slots__ = ("levels", "divide")

    def __init__(self, levels: torch.Tensor, divide: bool):
        self.levels, self.divide = levels, divide


def pack_pixels(pixels: torch.Tensor) -> "torch.Tensor | PackedPixels":
    """Pixels in [0, 1] -> PackedPixels when every value is exactly a byte level, else the tensor itself."""
    if pixels.dtype != torch.float32 or not pixels.numel():
        return pixels
    levels = (pixels * 255).round_().clamp_(0, 255).to(torch.uint8)
    for divide in (True, False):
        packed = PackedPixels(levels, divide)
        if torch.equal(unpack_pixels(packed), pixels):
            return packed
    return pixels


def unpack_pixels(packed: PackedPixels) -> torch.Tensor:
    pixels = packed.levels.to(torch.float32)
    return pixels.div_(255) if packed.divide else pixels.mul_(INVERSE)


def _nbytes(value) -> int:
    value = value.levels if isinstance(value, PackedPixels) else value
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 64
