"""Volumes as pictures: single slices, neighbouring slices as the three colours, montages; shown as radiologists do.

Axial and coronal slices show the patient's right on the left of the picture, front (axial) and head (coronal, sagittal)
at the top; sagittal slices face left. Pixels become square, so a body keeps its shape whatever the slice distance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vlm.errors import SampleError
from vlm.media.volume import Volume
from vlm.media.windows import PRESETS, Window, given_window, percentile_range

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
MAX_SIDE = 4096


@dataclass(frozen=True)
class Slice:
    """A slice as it is shown.

    Attributes:
        array: (H, W) float32 physical values, turned as shown, before pixels are made square.
        spacing: (row, column) mm.
        axis: "axial", "coronal" or "sagittal". index: along the RAS axis, from 0 (left, back or feet).
    """

    array: np.ndarray
    spacing: tuple[float, float]
    axis: str
    index: int


def take_slice(volume: Volume, index: int, axis: str = "axial") -> Slice:
    """One slice of a volume in RAS orientation. Raises SampleError: bad_axis, bad_slice."""
    along = axis_number(axis)
    count = volume.array.shape[along]
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < count:
        message = f"index {index!r:.20} is not in a volume of {count} {axis} slices; indices count from 0"
        raise SampleError(message, reason="bad_slice")
    plane = np.take(volume.array, int(index), along)  # the two others in x, y, z order
    rows, columns = [i for i in range(3) if i != along][::-1]
    shown = plane.T[::-1, ::-1]  # head or front at the top; the patient's right, or face, at the left
    return Slice(shown, (volume.spacing[rows], volume.spacing[columns]), axis, int(index))


def axis_number(axis: str) -> int:
    """ "axial" -> 2. Raises SampleError("bad_axis")."""
    if axis not in AXES:
        raise SampleError(f"axis {axis!r:.40} is not one of {', '.join(AXES)}", reason="bad_axis")
    return AXES[axis]


def choose_slices(volume: Volume, count: int, axis: str = "axial", mask: np.ndarray | None = None) -> list[int]:
    """Indices of `count` slices, in order: evenly spaced over the part that shows something.

    Args:
        mask: (X, Y, Z) labels: the slices with most of it instead; fewer than `count` where fewer have any.

    Raises SampleError: bad_count, bad_mask (another shape, or empty).
    """
    along = axis_number(axis)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise SampleError(f"{count!r:.20} slices cannot be shown: give a number from 1 on", reason="bad_count")
    others = tuple(i for i in range(3) if i != along)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != volume.array.shape:
            message = f"the mask has {mask.shape} voxels, the volume {volume.array.shape}"
            raise SampleError(message, reason="bad_mask")
        areas = np.count_nonzero(mask, axis=others)
        if not areas.any():
            raise SampleError("the mask is empty: no slice shows it", reason="bad_mask")
        best = np.argsort(-areas, kind="stable")[:count]
        return sorted(int(i) for i in best if areas[i])
    shown = np.flatnonzero(np.ptp(volume.array, axis=others) > 0)
    first, last = (int(shown[0]), int(shown[-1])) if len(shown) else (0, volume.array.shape[along] - 1)
    count = min(count, last - first + 1)
    # the middles of `count` equal parts: one slice is the middle one
    return [first + int((2 * i + 1) * (last - first + 1) / (2 * count)) for i in range(count)]


def choose_window(volume: Volume, window=None, path=None) -> tuple[Window, str]:
    """(the window for every slice of a volume, how it was chosen in words).

    Given (preset name or (center, width)); else the file's own; else soft tissue for CT; else the bulk of the values.
    One window serves the whole volume, so that slices can be compared.
    """
    if (given := given_window(window, volume.modality, path)) is not None:
        words = window.replace("_", " ").replace("-", " ").lower() if isinstance(window, str) else _words(given)
        return given, f"{words} window"
    if volume.window is not None:
        return volume.window, f"{_words(volume.window)} window"
    if volume.modality == "CT":
        return Window(*PRESETS["soft tissue"]), "soft tissue window"
    return percentile_range(volume.array), "full range"


def _words(window: Window) -> str:
    return f"{window.center:g}/{window.width:g}"


def render(volume: Volume, shown: Slice, window: Window, size: int | None = None) -> Image.Image:
    """A slice as 8-bit grey "L", its pixels square, its longer side `size` (None: as fine as its finer spacing)."""
    grey = window.apply(shown.array)
    return _square(255 - grey if volume.is_inverted else grey, shown.spacing, size)


def slice_image(
    volume: Volume, index: int, axis: str = "axial", window: Window | None = None, size=None
) -> Image.Image:
    """One slice as an RGB picture."""
    window = window or choose_window(volume)[0]
    return render(volume, take_slice(volume, index, axis), window, size).convert("RGB")


def neighbour_image(
    volume: Volume, index: int, axis: str = "axial", window: Window | None = None, size=None, step: int = 1
) -> Image.Image:
    """Slices `index - step`, `index`, `index + step` as red, green and blue; at the ends the last one is repeated."""
    window = window or choose_window(volume)[0]
    count = volume.array.shape[axis_number(axis)]
    take_slice(volume, index, axis)
    near = [min(max(place, 0), count - 1) for place in (index - step, index, index + step)]
    return Image.merge("RGB", [render(volume, take_slice(volume, place, axis), window, size) for place in near])


def montage(pictures: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Pictures of one size in rows, read as text is; as square as it can be. Raises SampleError("bad_montage")."""
    if not pictures or len({picture.size for picture in pictures}) > 1:
        raise SampleError("a montage needs pictures of one size", reason="bad_montage")
    width, height = pictures[0].size
    columns = min(columns or montage_columns(len(pictures), height, width), len(pictures))
    rows = -(-len(pictures) // columns)
    if max(columns * width, rows * height) > 4 * MAX_SIDE:
        raise SampleError(f"a montage of {columns * width} x {rows * height} pixels is too large", reason="bad_montage")
    sheet = Image.new("RGB", (columns * width, rows * height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * width, place // columns * height))
    return sheet


def montage_columns(count: int, height: int, width: int) -> int:
    """Columns of the squarest grid; of equals the one with fewest empty places."""

    def cost(columns: int) -> tuple:
        rows = -(-count // columns)
        return round(abs(math.log(columns * width / (rows * height))), 6), rows * columns - count

    return min(range(1, count + 1), key=cost)


def shown_size(volume: Volume, axis: str = "axial", size: int | None = None) -> tuple[int, int]:
    """(height, width) of what `slice_image` gives."""
    along = axis_number(axis)
    rows, columns = [i for i in range(3) if i != along][::-1]
    shape = volume.array.shape[rows], volume.array.shape[columns]
    return _target(shape, (volume.spacing[rows], volume.spacing[columns]), size)


def _target(shape: tuple[int, int], spacing: tuple[float, float], size: int | None) -> tuple[int, int]:
    lengths = [n * mm for n, mm in zip(shape, spacing)]
    scale = size / max(lengths) if size else 1 / min(spacing)
    scale = min(scale, MAX_SIDE / max(lengths))
    return tuple(max(1, round(length * scale)) for length in lengths)


def _square(grey: np.ndarray, spacing: tuple[float, float], size: int | None) -> Image.Image:
    height, width = _target(grey.shape, spacing, size)
    picture = Image.fromarray(np.ascontiguousarray(grey))
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BILINEAR)
