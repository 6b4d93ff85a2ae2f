"""A volume of one modality in one orientation: what DICOM series, multi-frame objects and NIfTI files become.

The array runs (x, y, z) to the patient's right, front and head, as near as its axes allow (RAS+, as nibabel's
`as_closest_canonical`): nothing is resampled. The affine keeps what is oblique.
"""

from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from vlm.errors import SampleError

MAX_VOXELS = 2**28  # 1 GiB of float32, 512 x 512 x 1,024


@dataclass
class Volume:
    """Physical values on a grid.

    Attributes:
        array: (X, Y, Z) float32; HU for CT.
        affine: (4, 4) float64, voxel indices -> mm, RAS+.
        modality: "CT", "MR", ... or "" where the file is silent (always for NIfTI).
        body_part: Defined term ("CHEST") or "".
        sequence: MRI sequence ("t1ce", ...) where the header names one, else "".
        window: The file's own window (`vlm.media.windows.Window`), or None.
        is_inverted: Whether low values are bright (MONOCHROME1).
        warnings: What a reader must know: uneven or missing slices, unknown orientation, burned-in text.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str = ""
    body_part: str = ""
    sequence: str = ""
    window: object = None
    is_inverted: bool = False
    warnings: tuple[str, ...] = field(default_factory=tuple)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres in mm along x, y, z."""
        return tuple(float(x) for x in np.linalg.norm(self.affine[:3, :3], axis=0))


def to_ras(volume: Volume, path=None) -> Volume:
    """The same volume with its axes turned and flipped to the nearest RAS+ orientation; no value changes.

    Raises SampleError("bad_affine") for an affine without three directions.
    """
    order, flips = ras_axes(volume.affine, path)
    array = volume.array.transpose(order)
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for axis, (old, flip) in enumerate(zip(order, flips)):
        move[old, axis] = -1 if flip else 1
        move[old, 3] = volume.array.shape[old] - 1 if flip else 0
        if flip:
            array = np.flip(array, axis)
    return replace(volume, array=array, affine=volume.affine @ move)


def ras_axes(affine: np.ndarray, path=None) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """(which old axis becomes x, y, z; whether each is flipped), by the rotation nearest to the affine."""
    affine = np.asarray(affine, dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0) if affine.shape == (4, 4) else np.zeros(3)
    if not np.isfinite(affine).all() or min(lengths) < 1e-6 or np.linalg.cond(affine[:3, :3] / lengths) > 1e4:
        message = "the affine of the volume is singular or no number: left and right cannot be told"
        raise SampleError(message, path=path, reason="bad_affine")
    left, _, right = np.linalg.svd(affine[:3, :3] / lengths)
    turn = left @ right
    order = max(permutations(range(3)), key=lambda p: sum(abs(turn[i, p[i]]) for i in range(3)))
    return order, tuple(bool(turn[i, order[i]] < 0) for i in range(3))


def check_voxels(shape: tuple[int, ...], path=None, max_voxels: int = MAX_VOXELS) -> None:
    """Raises SampleError("too_large") before anything of this shape is reserved."""
    count = 1
    for length in shape:
        count *= int(length)
    if count > max_voxels:
        words = " x ".join(str(length) for length in shape)
        message = f"a volume of {words} voxels is larger than the limit of {max_voxels}"
        raise SampleError(message, path=path, reason="too_large")


def same_grid(one: Volume, other: Volume, tolerance: float = 0.05) -> bool:
    """Whether two volumes have the same shape and the same affine within `tolerance` mm at every corner."""
    if one.array.shape != other.array.shape:
        return False
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in one.array.shape])).reshape(3, -1)
    corners = np.vstack([ends, np.ones(ends.shape[1])])
    return bool(np.abs((one.affine - other.affine) @ corners).max() <= tolerance)
