"""An expert's mask drawn over the slice, for the model to look at and for people, with a legend in words.

Each label has its own colour wherever it is seen (`vlm.experts.colours`). Inside it the slice shines through; the
outline is opaque, so that a region of one pixel is seen, too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vlm.experts.colours import colour_name, colour_rgb
from vlm.experts.trigger import ExpertError

STRENGTH = 0.4


def as_mask(mask: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """An expert's mask as an integer array (H, W) or (D, H, W).

    size: (width, height) of the image it belongs to, if known. Raises `ExpertError` for anything that is no mask of
    that image: fractions, NaN, negative labels, other dimensions, another size.
    """
    try:
        array = np.asarray(mask)
    except Exception as error:  # a list of unequal rows, a tensor on a device
        raise ExpertError("the expert's mask is no array") from error
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "iuf":
        raise ExpertError("the expert's mask is no array of labels")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.round(array)).any():
            raise ExpertError("the expert's mask holds values that are no labels")
        array = array.astype(np.int64)
    if array.min() < 0:
        raise ExpertError("the expert's mask holds negative labels")
    if size is not None and array.shape[-2:] != size[::-1]:
        height, width = array.shape[-2:]
        raise ExpertError(f"the expert's mask is {width} x {height}, the image {size[0]} x {size[1]}")
    return array


def label_names(mask: np.ndarray, names: Mapping[Any, Any] | None = None) -> dict[int, str]:
    """Names of the labels in a mask, ascending: those given (by number, as int or text), or `region N`."""
    given = {str(label): str(name) for label, name in (names or {}).items()}
    return {int(one): given.get(str(one), f"region {one}") for one in np.unique(mask) if one}


def legend(names: Mapping[int, str]) -> str:
    """`red: liver, lime: hepatic tumor`, in the order of labels; labels of one colour share it: `teal: a and b`."""
    by_colour: dict[str, list[str]] = {}
    for name in names.values():
        if name not in by_colour.setdefault(colour_name(name), []):
            by_colour[colour_name(name)].append(name)
    return ", ".join(f"{colour}: {' and '.join(same)}" for colour, same in by_colour.items())


def draw_overlay(image: Image.Image, mask: np.ndarray, names: Mapping[Any, Any] | None = None) -> Image.Image:
    """`image` as RGB with the regions of `mask` (H, W) coloured; of a volume's mask (D, H, W) the fullest slice counts.

    names: of the labels, for their colours; see `label_names`. Raises `ExpertError` where sizes differ.
    """
    mask = as_mask(mask, image.size)
    if mask.ndim == 3:
        mask = mask[fullest_slice(mask)]
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    for label, name in label_names(mask, names).items():
        inside = mask == label
        padded = np.pad(inside, 1)  # what leaves the image is outlined at its border
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        colour = np.float32(colour_rgb(name))
        pixels[inside] = (1 - STRENGTH) * pixels[inside] + STRENGTH * colour
        pixels[inside & ~core] = colour
    return Image.fromarray(pixels.round().astype(np.uint8))


def fullest_slice(mask: np.ndarray) -> int:
    """Index of the slice of (D, H, W) with the most labelled voxels; the middle one of an empty mask."""
    counts = (mask > 0).reshape(len(mask), -1).sum(1)
    return int(counts.argmax()) if counts.any() else len(mask) // 2
