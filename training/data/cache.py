"""Encoded samples kept in memory, so that a small corpus is read, decoded and resized once and not once an epoch.

Pixels are kept as bytes where that loses nothing (pictures that were not resized), else as they are;
`processor.collate` takes both.
"""

import logging

import torch

logger = logging.getLogger(__name__)
PIXEL_KEYS = ("pixel_values", "pixel_values_videos")


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
        """A fresh dict whose tensors are the cache's own: callers replace entries, never write into them."""
        kept = self._kept.get(index)
        return None if kept is None else dict(kept)

    def put(self, index: int, encoded: dict) -> None:
        if self.full or index in self._kept:
            return
        kept = {key: as_bytes(value) if key in PIXEL_KEYS else value for key, value in encoded.items()}
        size = sum(value.nbytes if isinstance(value, torch.Tensor) else 64 for value in kept.values())
        if self.bytes + size > self.max_bytes:
            self.full = True
            logger.warning(
                "the sample cache is full at %.1f GB with %d samples; the rest is encoded anew",
                self.bytes / 1e9,
                len(self),
            )
            return
        self.bytes += size
        self._kept[index] = kept


def as_bytes(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] -> uint8 when dividing those by 255 gives exactly the same pixels, else the tensor itself."""
    if pixels.dtype != torch.float32:
        return pixels
    levels = (pixels * 255).round_().clamp_(0, 255).to(torch.uint8)
    return levels if torch.equal(levels.float() / 255, pixels) else pixels
