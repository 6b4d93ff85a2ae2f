"""256 bits that a picture keeps when it is saved again, resized or blurred, and that two pages of text do not share.

The perceptual hash of Zauner (2010), "Implementation and benchmarking of perceptual image hash functions", with 16 x 16
instead of 8 x 8 frequencies: the usual 64 bits (and a difference hash of any size) cannot tell receipts on white apart.
Measured on scanned receipts, tables, charts and small synthetic pages: the same picture as JPEG of quality 40, at half
size, at 0.77 of its size or blurred differs in at most 12 bits (95 % of the cases), different ones in 26 and more. A
picture cropped by 2 % or washed out differs in about 20: such copies are not found.
"""

import functools

import numpy as np
from PIL import Image

SIDE, FREQUENCIES = 64, 16
BITS = FREQUENCIES**2
DISTANCE = 12  # bits
FLAT = 1.0  # grey levels of standard deviation; blank pages have nothing to compare


def fingerprint(image: Image.Image) -> bytes | None:
    """The 32 bytes of an upright picture of any size and mode; None when it is blank."""
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey, dtype=np.float32)
    if pixels.std() < FLAT:
        return None
    waves = _waves()
    found = (waves @ pixels @ waves.T).ravel()
    return np.packbits(found > np.median(found)).tobytes()


@functools.cache
def _waves() -> np.ndarray:
    """(16, 64) cosines of the frequencies 1 ... 16; 0, the mean of a row, is left out."""
    k, x = np.arange(1, FREQUENCIES + 1)[:, None], np.arange(SIDE)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE)).astype(np.float32)
