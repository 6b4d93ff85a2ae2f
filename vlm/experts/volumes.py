"""Reading a volume for the three-dimensional experts: a NIfTI file or the folder of a DICOM series.

One small door (`read_volume`), so that the experts do not care where voxels come from. Whatever the geometry leaves
open (slices that are missing or mixed) is refused: a measure in millilitres from it would be wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlm.experts.protocol import ExpertError

MAX_VOXELS = 400_000_000  # 512 x 512 x 1525; 1.6 GB as float32


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


def is_nifti(path: Path) -> bool:
    """Whether a file's name says NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_volume(path: Path) -> Volume:
    """The volume of a NIfTI file or of a folder with one DICOM series. Raises `ExpertError`, worded for the model."""
    path = Path(path)
    if path.is_dir():
        return _read_series(path)
    if is_nifti(path):
        return _read_nifti(path)
    raise ExpertError("needs a volume: a NIfTI file or the folder of a DICOM series, not a single slice")


def _read_nifti(path: Path) -> Volume:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError("reading NIfTI needs nibabel: pip install 'radio-vlm[medical]'") from error
    try:
        image = nibabel.load(path)
        shape = tuple(size for size in image.shape[3:] if size != 1)
        if len(image.shape) < 3 or shape:
            raise ExpertError(f"needs one volume of three dimensions, not {image.shape}")
        _bound(image.shape[:3])
        array = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    except ExpertError:
        raise
    except Exception as error:
        raise ExpertError(f"cannot read the volume: {type(error).__name__}") from error
    if abs(np.linalg.det(image.affine[:3, :3])) < 1e-6:
        raise ExpertError("the header gives no voxel size")
    return Volume(np.ascontiguousarray(array.T), np.asarray(image.affine, dtype=np.float64))


def _read_series(folder: Path) -> Volume:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("reading DICOM needs pydicom: pip install 'radio-vlm[medical]'") from error
    slices = []
    for file in sorted(folder.iterdir()):
        if not file.is_file():
            continue
        try:
            data = pydicom.dcmread(file)
        except Exception:  # other files may lie in the folder
            continue
        if "ImagePositionPatient" in data and "PixelData" in data:
            slices.append((file, data))
            _bound((int(data.Rows), int(data.Columns), len(slices)))
    if len(slices) < 3:
        raise ExpertError("the folder holds no DICOM series of at least three slices")
    first = slices[0][1]
    orientation = np.asarray(first.ImageOrientationPatient, dtype=np.float64)
    for keyword in ("SeriesInstanceUID", "Rows", "Columns", "Modality", "PixelSpacing"):
        if any(data.get(keyword) != first.get(keyword) for _, data in slices):
            raise ExpertError(f"the slices differ in {keyword}: give one series")
    if any(np.abs(orientation - np.asarray(data.ImageOrientationPatient, float)).max() > 1e-3 for _, data in slices):
        raise ExpertError("the slices differ in orientation: give one series")
    normal = np.cross(orientation[:3], orientation[3:])
    slices.sort(key=lambda item: float(np.dot(normal, np.asarray(item[1].ImagePositionPatient, float))))
    places = np.asarray([data.ImagePositionPatient for _, data in slices], dtype=np.float64)
    steps = np.diff(places, axis=0)
    step = np.median(steps, axis=0)
    if np.abs(steps - step).max() > 0.1 * np.linalg.norm(step) + 1e-3 or np.linalg.norm(step) < 1e-3:
        raise ExpertError("slices are missing or stand twice in the series")
    try:
        array = np.stack([
            data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
            for _, data in slices
        ]).astype(np.float32)  # fmt: skip
    except Exception as error:
        raise ExpertError(f"cannot read the pixels: {type(error).__name__}") from error
    row_mm, column_mm = (float(value) for value in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * column_mm, orientation[3:] * row_mm
    affine[:3, 2], affine[:3, 3] = step, places[0]
    affine[:2] *= -1  # DICOM's axes run to left and back, NIfTI's to right and front
    return Volume(array, affine, str(first.get("Modality") or "") or None, tuple(file for file, _ in slices))


def _bound(shape: tuple[int, ...]) -> None:
    if int(np.prod([int(size) for size in shape], dtype=np.int64)) > MAX_VOXELS:
        raise ExpertError(f"the volume has more than {MAX_VOXELS} voxels")
