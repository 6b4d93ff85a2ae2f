"""The order of slices from geometry alone: positions projected on the normal, never file names or InstanceNumber.

What makes no volume is refused in words: mixed orientations or sizes, several images at one place, missing slices.
DICOM PS3.3 C.7.6.2.1.1: ImageOrientationPatient holds the directions of a row and of a column, ImagePositionPatient
the centre of the first pixel, in mm, LPS (left, posterior, superior are positive).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm.errors import SampleError

SAME_PLACE = 0.01  # mm
GAP = 1.5  # of the median distance: a slice is missing
UNEVEN = 0.02  # of the median distance
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Plane:
    """One slice before its pixels are read.

    Attributes:
        position: (3,) mm LPS, or None where the header is silent. orientation: (6,), or None.
        spacing: (row, column) mm, or None. size: (rows, columns).
        uid: Tells copies of one image; never shown.
        rank: Orders several images at one place (acquisition, echo, time, instance).
        thickness: Slice thickness or spacing in mm: for a single slice alone.
    """

    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    size: tuple[int, int]
    uid: str = ""
    rank: tuple = ()
    thickness: float | None = None


@dataclass(frozen=True)
class Stack:
    """`order`: which planes, from the first slice to the last. `affine` (4, 4): (column, row, slice) -> mm RAS.
    `uneven`: by how much the distances of slices differ from their median, at most, as a share of it.
    """

    order: tuple[int, ...]
    affine: np.ndarray
    warnings: tuple[str, ...]
    uneven: float = 0.0


def stack_planes(planes: Sequence[Plane], path=None, strict: bool = True, pick: int | None = None) -> Stack:
    """Planes in any order -> their order and the affine of the volume they make.

    Args:
        strict: Refuse a series with missing slices; else it is a warning, and the affine spreads the slices evenly.
        pick: Which, from 1, of several images at each place (phases, echoes, b-values).

    Raises:
        SampleError: no_geometry, mixed_sizes, mixed_orientations, mixed_spacing, several_at_one_place, missing_slices,
            no_stack.
    """
    _check_alike(planes, path)
    across, down = _directions(planes[0], path)
    normal = np.cross(across, down)
    positions = np.array([plane.position for plane in planes])
    heights = positions @ normal
    warnings: list[str] = []
    order = _one_a_place(planes, heights, path, pick, warnings)
    step = _step(positions[order], heights[order], normal, path, strict, warnings)
    if step is None:
        thickness = planes[order[0]].thickness
        if not thickness:
            warnings.append("a single slice without thickness: 1 mm is assumed")
        step = normal * (thickness or 1.0)
    row, column = planes[0].spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = across * column, down * row, step, positions[order[0]]
    gaps = np.diff(heights[order])
    uneven = float(np.abs(gaps / np.median(gaps) - 1).max()) if len(gaps) else 0.0
    return Stack(tuple(int(i) for i in order), LPS_TO_RAS @ affine, tuple(warnings), uneven)


def plane_name(orientation) -> str:
    """ "axial", "coronal" or "sagittal", by the axis nearest to the normal."""
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    return ("sagittal", "coronal", "axial")[int(normal.argmax())]


def _check_alike(planes: Sequence[Plane], path) -> None:
    """All planes say where they are, and are of one size, direction and spacing."""
    if not planes:
        raise SampleError("no slices", path=path, reason="no_slices")
    silent = sum(plane.position is None or plane.orientation is None or plane.spacing is None for plane in planes)
    if silent:
        message = (
            f"{silent} of {len(planes)} slices do not say where they are (ImagePositionPatient, "
            "ImageOrientationPatient, PixelSpacing): they cannot be ordered; numbers and file names are not trusted"
        )
        raise SampleError(message, path=path, reason="no_geometry")
    sizes = Counter(plane.size for plane in planes)
    if len(sizes) > 1:
        found = ", ".join(f"{n} of {h} x {w}" for (h, w), n in sizes.most_common(4))
        raise SampleError(f"slices of several sizes make no volume: {found}", path=path, reason="mixed_sizes")
    first = np.array(planes[0].orientation)
    if any(np.abs(np.array(plane.orientation) - first).max() > 1e-3 for plane in planes):
        groups = Counter((plane_name(p.orientation), tuple(np.round(p.orientation, 2) + 0.0)) for p in planes)
        found = ", ".join(f"{n} {name}" for (name, _), n in groups.most_common(4))
        message = f"mixed orientations make no volume: {found} (a scout or several stacks in one series?)"
        raise SampleError(message, path=path, reason="mixed_orientations")
    spacings = Counter(tuple(np.round(plane.spacing, 4).tolist()) for plane in planes)
    if len(spacings) > 1:
        found = ", ".join(f"{n} of {a:g} x {b:g} mm" for (a, b), n in spacings.most_common(4))
        raise SampleError(
            f"slices of several pixel spacings make no volume: {found}", path=path, reason="mixed_spacing"
        )


def _directions(plane: Plane, path) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row and along a column. Raises SampleError("no_geometry") where they are none."""
    across, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    lengths = np.linalg.norm(across), np.linalg.norm(down)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(across @ down) > 0.01 or min(plane.spacing) <= 0:
        message = "directions of rows and columns are not at right angles and of length 1, or the spacing is 0"
        raise SampleError(message, path=path, reason="no_geometry")
    return across / lengths[0], down / lengths[1]


def _one_a_place(planes, heights: np.ndarray, path, pick: int | None, warnings: list[str]) -> np.ndarray:
    """Indices from the lowest slice to the highest, one a place: copies of one image are left out."""
    seen: set[str] = set()
    kept = []
    for index in sorted(range(len(planes)), key=lambda i: (heights[i], planes[i].rank, i)):
        uid = planes[index].uid
        if uid and uid in seen:
            continue
        seen.add(uid)
        kept.append(index)
    if copies := len(planes) - len(kept):
        warnings.append(f"{copies} of {len(planes)} files are copies of others and were left out")
    places: list[list[int]] = []
    for index in kept:
        if places and heights[index] - heights[places[-1][0]] < SAME_PLACE:
            places[-1].append(index)
        else:
            places.append([index])
    counts = {len(place) for place in places}
    if counts == {1} and pick is None:
        return np.array([place[0] for place in places])
    most = max(counts)
    if len(counts) > 1:
        crowded = sum(len(place) > 1 for place in places)
        message = f"{crowded} of {len(places)} places hold several images (up to {most}), the others one: no volume"
        raise SampleError(message, path=path, reason="several_at_one_place")
    if pick is None or not 1 <= pick <= most:
        message = f"{most} images at each of {len(places)} places (phases, echoes or b-values): choose with pick=1" + (
            f" to pick={most}" if most > 1 else ""
        )
        raise SampleError(message, path=path, reason="several_at_one_place")
    return np.array([sorted(place, key=lambda i: planes[i].rank)[pick - 1] for place in places])


def _step(positions, heights, normal, path, strict: bool, warnings: list[str]) -> np.ndarray | None:
    """The vector from slice to slice in mm LPS; None for a single slice."""
    if len(heights) < 2:
        return None
    gaps = np.diff(heights)
    median = float(np.median(gaps))
    holes = np.flatnonzero(gaps > GAP * median)
    if len(holes):
        missing = int(sum(round(gaps[i] / median) - 1 for i in holes)) or len(holes)
        where = ", ".join(f"behind slice {i + 1} ({gaps[i]:.2f} mm instead of {median:.2f})" for i in holes[:5])
        message = f"about {missing} slices are missing among {len(heights)}: {where}"
        if strict:
            raise SampleError(message, path=path, reason="missing_slices")
        warnings.append(f"{message}; distances along the volume are wrong")
    elif np.abs(gaps - median).max() > UNEVEN * median:
        warnings.append(f"slices are unevenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm; the mean is used")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    line = positions[0] + np.arange(len(positions))[:, None] * step
    aside = (positions - line) - ((positions - line) @ normal)[:, None] * normal
    if np.linalg.norm(aside, axis=1).max() > max(1.0, 0.25 * median):
        raise SampleError("the slices do not lie on one line: no volume", path=path, reason="no_stack")
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if tilt > 1:
        warnings.append(f"the stack is tilted by {tilt:.0f} degrees (gantry tilt): the volume is sheared")
    return step
