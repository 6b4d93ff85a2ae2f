"""Writes small DICOM series, enhanced multi-frame objects and NIfTI files of a known volume, in any slice direction.

A volume here is (X, Y, Z) in RAS+ with a diagonal affine; the writers cut it along an axis as scanners do, in LPS.
"""

from pathlib import Path

import numpy as np

SPACING = (0.8, 1.2, 5.0)
ORIGIN = (-20.0, -30.0, 40.0)
# axis of the slices -> directions of a row and of a column in LPS, as indices of RAS axes and signs
WAYS = {
    "axial": ((0, -1), (1, -1)),  # rows run to the patient's left, columns to the back
    "coronal": ((0, -1), (2, -1)),
    "sagittal": ((1, -1), (2, -1)),
}


def body(shape=(6, 8, 5), seed: int = 0) -> np.ndarray:
    """(X, Y, Z) int16 values that differ everywhere."""
    count = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(count).astype(np.int16).reshape(shape)


def affine_of(spacing=SPACING, origin=ORIGIN) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def new_dataset(path: Path, pixels: np.ndarray, sop_class: str | None = None, **tags):
    """An uncompressed pydicom dataset of `pixels` (H, W) or (F, H, W), not yet written."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class or CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality = "CT"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def save(data, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def cut(
    volume: np.ndarray, way: str = "axial", spacing=SPACING, origin=ORIGIN
) -> list[tuple[np.ndarray, list, list, list]]:
    """(pixels (H, W), position LPS, orientation, [row, column] spacing) of each slice along the RAS axis."""
    (across, across_sign), (down, down_sign) = WAYS[way]
    (along,) = {0, 1, 2} - {across, down}
    lps = np.array([-1.0, -1.0, 1.0])
    directions = []
    for axis, sign in ((across, across_sign), (down, down_sign)):
        unit = np.zeros(3)
        unit[axis] = sign
        directions += (unit * lps).tolist()
    found = []
    for index in range(volume.shape[along]):
        plane = np.take(volume, index, along)  # axes in increasing order
        plane = plane.T if across < down else plane  # (down, across)
        plane = plane[::-1] if down_sign < 0 else plane
        plane = plane[:, ::-1] if across_sign < 0 else plane
        corner = np.zeros(3)
        corner[along] = index
        corner[across] = volume.shape[across] - 1 if across_sign < 0 else 0
        corner[down] = volume.shape[down] - 1 if down_sign < 0 else 0
        position = (corner * spacing + np.array(origin)) * lps
        found.append((np.ascontiguousarray(plane), position.tolist(), directions, [spacing[down], spacing[across]]))
    return found


def write_series(
    folder: Path, volume: np.ndarray, way: str = "axial", seed: int = 0, prefix: str = "im", **tags
) -> list[Path]:
    """One file a slice, names and InstanceNumbers in random order; returned from the first slice to the last."""
    from pydicom.uid import generate_uid

    slices = cut(volume, way)
    names = np.random.default_rng(seed).permutation(len(slices))
    series = generate_uid()
    paths = []
    for name, (pixels, position, orientation, spacing) in zip(names, slices):
        path = folder / f"{prefix}{name:03d}"
        plain = {"SeriesInstanceUID": series, "InstanceNumber": int(name) + 1, "ImagePositionPatient": position}
        plain |= {"ImageOrientationPatient": orientation, "PixelSpacing": spacing, "SliceThickness": 5.0}
        paths.append(save(new_dataset(path, pixels, **(plain | tags)), path))
    return paths


def write_enhanced(path: Path, volume: np.ndarray, order=None, slope: float = 1, intercept: float = 0, **tags) -> Path:
    """One multi-frame object with functional groups; `order`: in which the frames are stored."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import EnhancedCTImageStorage

    slices = cut(volume)
    slices = slices if order is None else [slices[i] for i in order]
    data = new_dataset(path, np.stack([pixels for pixels, *_ in slices]), EnhancedCTImageStorage, **tags)
    shared, measures, turn, units = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = slices[0][3], 5.0
    turn.ImageOrientationPatient = slices[0][2]
    units.RescaleSlope, units.RescaleIntercept, units.RescaleType = slope, intercept, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([turn])
    shared.PixelValueTransformationSequence = Sequence([units])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for _, position, *_ in slices:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = position
        group.PlanePositionSequence = Sequence([place])
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return save(data, path)


def write_nifti(path: Path, volume: np.ndarray, affine=None, slope=None) -> Path:
    """A NIfTI-1 file of `volume`, by nibabel."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume, affine_of() if affine is None else affine)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    image.to_filename(path)
    return path
