"""Masks as files that other programs open: NIfTI with the source's geometry, and DICOM-SEG on the source's slices.

Label numbers, names and the fixed colours (`vlm.experts.colours`) travel with both and are read back the same. A
DICOM-SEG carries its source's patient, study and frame of reference, as the standard wants: it belongs where the source
belongs, never into a prompt, log or report.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm.experts.colours import colour_rgb
from vlm.media.deidentify import quiet

NIFTI_COMMENT = 6  # NIfTI extension code for plain text


def save_nifti(path: Path, mask: np.ndarray, affine: np.ndarray, labels: Mapping[int, str]) -> None:
    """Write a mask (D, H, W) with `affine` (4, 4) from (w, h, d) indices to mm, RAS+ (as in `Volume`).

    Names and colours go into the file's header extension as JSON. Raises ValueError for a label without a name.
    """
    import nibabel
    from nibabel.nifti1 import Nifti1Extension

    _check(mask, labels)
    if mask.ndim != 3:
        raise ValueError(f"a NIfTI mask needs (D, H, W), not {mask.shape}")
    image = nibabel.Nifti1Image(np.ascontiguousarray(mask.astype(_smallest(mask)).T), affine)
    table = {str(label): {"name": name, "rgb": colour_rgb(name)} for label, name in labels.items()}
    image.header.extensions.append(Nifti1Extension(NIFTI_COMMENT, json.dumps({"labels": table}).encode()))
    image.header["intent_code"] = 1002  # NIFTI_INTENT_LABEL
    nibabel.save(image, path)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Mask (D, H, W), affine and label names of a file that `save_nifti` wrote (no names for others)."""
    import nibabel

    with quiet():
        image = nibabel.load(path)
    labels = {}
    for extension in image.header.extensions:
        if extension.get_code() == NIFTI_COMMENT:
            content = extension.get_content()
            text = content.decode() if isinstance(content, bytes) else str(content)
            table = json.loads(text.rstrip("\0 "))["labels"]
            labels = {int(label): entry["name"] for label, entry in table.items()}
    return np.ascontiguousarray(np.asarray(image.dataobj).T), image.affine, labels


def save_dicom_seg(
    path: Path, mask: np.ndarray, sources: Sequence[Path], labels: Mapping[int, str], expert: str
) -> None:
    """Write a mask (D, H, W), or (H, W) for one slice, on the DICOM files `sources` in the order of the slices.

    expert: name of the expert, the segments' algorithm. Needs highdicom: the `experts` extra. A mask without any
    labelled pixel raises ValueError, as the standard has no empty segmentation.
    """
    try:
        import highdicom
        import pydicom
        from highdicom.color import CIELabColor
        from pydicom.sr.codedict import codes
        from pydicom.uid import generate_uid
    except ImportError as error:
        raise ImportError("writing DICOM-SEG needs highdicom: pip install 'radio-vlm[experts]'") from error
    mask = mask[None] if mask.ndim == 2 else mask
    _check(mask, labels)
    with quiet():  # warnings quote the source's header
        data = [pydicom.dcmread(source) for source in sources]
    shape = (len(data), int(data[0].Rows), int(data[0].Columns)) if data else (0,)
    if mask.shape != shape:
        raise ValueError(f"the mask is {mask.shape} and its source {shape}")
    present = [int(label) for label in np.unique(mask) if label]
    if not present:
        raise ValueError("the mask is empty: there is nothing to save as DICOM-SEG")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=expert, version="1", family=codes.DCM.ArtificialIntelligence
    )
    descriptions, numbered = [], np.zeros(mask.shape, np.uint8)
    if len(present) > 255:
        raise ValueError(f"{len(present)} labels are more than the 255 segments that are written")
    for number, label in enumerate(present, start=1):
        numbered[mask == label] = number
        description = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=labels[label],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_rgb(*colour_rgb(labels[label])),
        )
        description.SegmentDescription = f"label {label}"  # segments are numbered 1, 2, ...; labels are not
        descriptions.append(description)
    with quiet():
        segmentation = highdicom.seg.Segmentation(
            source_images=data,
            pixel_array=numbered,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=generate_uid(),
            series_number=900,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="radio-vlm",
            manufacturer_model_name=expert,
            software_versions="1",
            device_serial_number="0",
            series_description=f"{expert}, research software, not for clinical use",
            omit_empty_frames=False,
        )
        segmentation.save_as(path)


def read_dicom_seg(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Mask (D, H, W) in the source's order of slices, and the label names, of a file that `save_dicom_seg` wrote."""
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("reading DICOM needs pydicom: pip install 'radio-vlm[medical]'") from error
    with quiet():
        data = pydicom.dcmread(path)
        frames = data.pixel_array.reshape(-1, int(data.Rows), int(data.Columns))
    numbers, labels = {}, {}
    for item in data.SegmentSequence:
        label = int(str(item.SegmentDescription).removeprefix("label "))
        numbers[int(item.SegmentNumber)], labels[label] = label, str(item.SegmentLabel)
    groups = data.PerFrameFunctionalGroupsSequence
    places = [tuple(float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient) for group in groups]
    orientation = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    normal = np.cross(np.asarray(orientation[:3], float), np.asarray(orientation[3:], float))
    order = sorted(set(places), key=lambda place: float(np.dot(normal, place)))
    mask = np.zeros((len(order), *frames.shape[1:]), np.uint8 if max(labels) < 256 else np.uint16)
    for frame, group, place in zip(frames, groups, places):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        mask[order.index(place)][frame > 0] = numbers[number]
    return mask, labels


def _check(mask: np.ndarray, labels: Mapping[int, str]) -> None:
    unnamed = [int(label) for label in np.unique(mask) if label and int(label) not in labels]
    if unnamed:
        raise ValueError(f"label {unnamed[0]} of the mask has no name")


def _smallest(mask: np.ndarray) -> type:
    return np.uint8 if mask.size == 0 or mask.max() < 256 else np.uint16
