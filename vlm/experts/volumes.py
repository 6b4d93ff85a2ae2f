"""Reading a volume for the three-dimensional experts: a NIfTI file or the folder of a DICOM series.

The readers are those of `vlm.media`; here the axes stay as the files have them, so that a mask can be written back onto
its slices, and whatever the geometry leaves open (slices that are missing, uneven or mixed) is refused in words for the
model: a measure in millilitres from it would be wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlm.errors import SampleError
from vlm.experts.protocol import ExpertError
from vlm.media.dicom_series import stack_series
from vlm.media.nifti import is_nifti
from vlm.media.nifti import read_nifti as read_nifti_volume

MAX_VOXELS = 400_000_000  # 512 x 512 x 1525; 1.6 GB as float32
LEAST_SLICES = 3
UNEVEN = 0.1  # of the distance of slices
GAPS = "slices are missing or stand twice in the series"
# reason of a reader -> what the model is told
REFUSED = {
    "missing_slices": GAPS,
    "several_at_one_place": GAPS,
    "several_series": "the slices differ in SeriesInstanceUID: give one series",
    "mixed_spacing": "the slices differ in PixelSpacing: give one series",
    "mixed_sizes": "the slices differ in Rows or Columns: give one series",
    "mixed_orientations": "the slices differ in orientation: give one series",
    "no_slices": "the folder holds no DICOM series of at least three slices",
    "bad_frame": "needs one volume of three dimensions: this file holds several",
    "bad_affine": "the header gives no voxel size",
}

__all__ = ["Volume", "is_nifti", "read_volume"]


@dataclass(frozen=True)
class Volume:
    """`array` (D, H, W) float32 in physical values; `affine` (4, 4) from (w, h, d) indices to mm, NIfTI's axes (RAS+).

    `files` are the DICOM files of a series in the order of the slices, empty for NIfTI. `modality` is the header's.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def read_volume(path: Path) -> Volume:
    """The volume of a NIfTI file or of a folder with one DICOM series. Raises `ExpertError`, worded for the model."""
    path = Path(path)
    try:
        if path.is_dir():
            return _read_series(path)
        if is_nifti(path):
            volume = read_nifti_volume(path, max_voxels=MAX_VOXELS, turn=False)
            return Volume(np.ascontiguousarray(volume.array.T), volume.affine)
    except SampleError as error:
        if error.reason == "too_large":
            raise ExpertError(f"the volume has more than {MAX_VOXELS} voxels") from None
        raise ExpertError(REFUSED.get(error.reason, f"cannot read the volume: {error.message}")) from None
    raise ExpertError("needs a volume: a NIfTI file or the folder of a DICOM series, not a single slice")


def _read_series(folder: Path) -> Volume:
    series = stack_series(folder, MAX_VOXELS)
    if len(series.paths) < LEAST_SLICES:
        raise ExpertError(REFUSED["no_slices"])
    if series.uneven > UNEVEN:
        raise ExpertError(GAPS)
    volume = series.volume
    return Volume(np.ascontiguousarray(volume.array.T), volume.affine, volume.modality or None, series.paths)
