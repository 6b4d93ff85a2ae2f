"""Decoded frames -> upright RGB with square pixels in one tensor, never more of them than memory is meant to hold."""

import math
import struct

import numpy as np
import torch

from vlm.errors import SampleError

MAX_PIXELS = 1920 * 1080  # of a frame; larger ones are reduced while they are converted
MAX_CLIP_PIXELS = 128 * MAX_PIXELS  # of all frames together: 0.8 GB; frames of longer clips are smaller


def shown_size(width: int, height: int, aspect: float, max_pixels: int) -> tuple[int, int]:
    """Size at which a frame of pixels `aspect` times as wide as high is kept, as (width, height).

    The shorter side of a pixel is stretched (nothing is lost), then both sides shrink alike to fit `max_pixels`.
    """
    wide, high = (width * aspect, float(height)) if aspect >= 1 else (float(width), height / aspect)
    scale = min(1.0, math.sqrt(max_pixels / (round(wide) * round(high))))
    if scale == 1.0:
        return round(wide), round(high)
    wide = min(max(1, int(wide * scale)), max_pixels)
    return wide, max(1, min(int(high * scale), max_pixels // wide))


def upright(image: np.ndarray, matrix: bytes | None) -> np.ndarray:
    """(H, W, 3) turned and mirrored by a display matrix (nine 16.16 numbers; x' = a x + c y, y' = b x + d y)."""
    if matrix is None or len(matrix) != 36:
        return image
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, right, down = image.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def display_matrix(frame) -> bytes | None:
    """The bytes of a frame's display matrix, if it has one."""
    for data in frame.side_data:
        if getattr(data, "type", None) is not None and data.type.name == "DISPLAYMATRIX":
            return bytes(data)
    return None


class FrameStore:
    """Collects frames as (T, 3, H, W) uint8. All take the size of the first: a stream may change its size midway.

    Args:
        expected: Frames that will come, as far as known; decides how large each may be.
        aspect: Width of a pixel over its height.
    """

    def __init__(self, expected: int, aspect: float, max_pixels: int) -> None:
        self.expected = max(1, expected)
        self.aspect = aspect
        self.max_pixels = max(1, min(max_pixels, MAX_CLIP_PIXELS // self.expected))
        self.size: tuple[int, int] | None = None  # (width, height) as stored, before turning
        self.times: list[float] = []
        self._frames: torch.Tensor | None = None

    def add(self, time: float, frame) -> None:
        """Keeps a decoded frame of any pixel format."""
        if self.size is None:
            self.size = shown_size(frame.width, frame.height, self.aspect, self.max_pixels)
        if self.size == (frame.width, frame.height):
            image = frame.to_ndarray(format="rgb24")
        else:
            width, height = self.size
            image = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
        self.add_image(time, upright(image, display_matrix(frame)))

    def add_image(self, time: float, image: np.ndarray) -> None:
        """Keeps an upright (H, W, 3) uint8 image."""
        height, width = image.shape[:2]
        count = len(self.times)
        if self._frames is None:
            self._frames = torch.empty(self.expected, 3, height, width, dtype=torch.uint8)
            self._planes = self._frames.numpy()
        elif count == len(self._frames):  # the header promised fewer
            if count * height * width > MAX_CLIP_PIXELS:
                raise SampleError(f"more frames than the {self.expected} the header allows for", reason="too_large")
            self._frames = torch.cat([self._frames, torch.empty_like(self._frames)])
            self._planes = self._frames.numpy()
        for channel in range(3):  # straight to its place: no second copy of the picture
            self._planes[count, channel] = image[..., channel]
        self.times.append(time)

    def frames(self) -> torch.Tensor:
        """(T, 3, H, W) uint8."""
        whole = len(self.times) == len(self._frames)
        return self._frames if whole else self._frames[: len(self.times)].clone()  # a view would keep all of it alive
