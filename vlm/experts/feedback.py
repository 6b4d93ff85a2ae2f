"""What of an expert's result goes back to the model: its text, its mask over the slice, or both.

Everything that an expert returns is checked here first; what is not as declared becomes an `ExpertError`, worded for
the model.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm.experts.image_facts import ImageFacts
from vlm.experts.overlay import as_mask, draw_overlay, fullest_slice, label_names, legend
from vlm.experts.protocol import ExpertResult
from vlm.experts.trigger import ExpertError

FEEDBACK = ("text", "overlay", "both")
MAX_TEXT = 4000  # characters of a result that the model reads
NOTHING_MARKED = "no region is marked"
NO_NUMBER = re.compile(r"(?<![\w.])[+-]?(?:nan|inf)(?!\w)")


def checked(result: Any, name: str, facts: ImageFacts) -> ExpertResult:
    """`result` if it is what `Expert.run` may return for an image with these facts; its mask as an integer array.

    Raises TypeError for what is no `ExpertResult`, `ExpertError` for one with unusable content.
    """
    if not isinstance(result, ExpertResult):
        raise TypeError(f"{name} returned {type(result).__name__}, not ExpertResult")
    if not isinstance(result.text, str):
        raise ExpertError(f"{name} returned no text")
    if NO_NUMBER.search(result.text):
        raise ExpertError(f"{name} returned a value that is no number")
    if result.mask is None:
        if not result.text.strip():
            raise ExpertError(f"{name} returned nothing")
        return result
    mask = as_mask(result.mask)
    if mask.ndim == 2 and facts.shape is not None:
        as_mask(mask, facts.shape[::-1])
    # several channels of one file may share a mask; a folder may hold more than the series that was read
    if mask.ndim == 3 and not facts.series and facts.voxels and facts.voxels % mask.size:
        raise ExpertError(f"the expert's mask has {mask.size} voxels, the image {facts.voxels}")
    if not mask.any() and not result.text.strip():
        raise ExpertError(f"{name} marked nothing")
    return ExpertResult(result.text, mask, result.findings)


def fed_back(result: ExpertResult, feedback: str, path: Path, shown: Path | None) -> tuple[str, Any | None]:
    """(text, overlay or None) of a checked result.

    path: the file that the expert read; shown: the image of the conversation, if another: the mask is drawn over it
    when it fits. A result without mask is text in every case. A mask that marks nothing is said in words.
    """
    text = result.text.strip("\n")
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]} [cut]"
    if result.mask is None:
        return text, None
    names = result.findings.get("labels") if isinstance(result.findings, dict) else None
    names = names if isinstance(names, dict) else None
    if feedback == "text":
        return text if text.strip() else ", ".join(label_names(result.mask, names).values()), None
    if not result.mask.any():
        return (f"{text}\n{NOTHING_MARKED}" if feedback == "both" and text.strip() else NOTHING_MARKED), None
    try:
        image, flat = picture_of(path, result.mask)
        if shown is not None and shown != path:
            own, own_flat = picture_of(shown, result.mask)
            image, flat = (own, own_flat) if own.size == image.size else (image, flat)
    except NoPictureError as error:
        if not text.strip():
            raise
        return f"{text}\nno overlay: {error}", None
    overlay = draw_overlay(image, flat, names)
    line = f"overlay: {legend(label_names(flat, names))}"
    return (f"{text}\n{line}" if feedback == "both" and text.strip() else line), overlay


class NoPictureError(ExpertError):
    """There is a mask, and no picture that it could be drawn over; the text of the result still counts."""


def picture_of(path: Path, mask: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """The picture that a mask is drawn over, and the mask (H, W) of it: of a volume's (D, H, W) the fullest slice.

    Raises `NoPictureError` where the file shows no such picture.
    """
    from vlm.errors import SampleError
    from vlm.experts.volumes import is_nifti
    from vlm.media import load_image

    try:
        if mask.ndim == 2 or len(mask) == 1:
            return load_image(path), mask.reshape(mask.shape[-2:])
        if path.is_dir() or is_nifti(path):
            return volume_slice(path, mask)
        from vlm.media.dicom import read_dicom

        index = fullest_slice(mask)
        shown = read_dicom(path, frame=index)
    except (SampleError, OSError) as error:
        raise NoPictureError(getattr(error, "reason", "unreadable").replace("_", " ")) from error
    if shown.num_frames != len(mask):
        raise NoPictureError(f"the mask has {len(mask)} slices, the image {shown.num_frames}")
    return shown.image, mask[index]


def volume_slice(path: Path, mask: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """The same of a series folder or a NIfTI file, both turned as radiologists look at an axial slice: the patient's
    right on the left, front at the top. CT through the soft-tissue window, others from the 0.5 to the 99.5 percentile.
    """
    from vlm.experts.volumes import read_volume

    try:
        volume = read_volume(path)
    except ExpertError as error:
        raise NoPictureError(str(error)) from error
    if volume.array.shape != mask.shape:
        raise NoPictureError(f"the mask is of {mask.shape} voxels, the volume of {volume.array.shape}")
    index = fullest_slice(mask)
    turn = tuple(slice(None, None, -1 if volume.affine[axis, axis] > 0 else 1) for axis in (1, 0))  # rows, columns
    values, flat = volume.array[index][turn], mask[index][turn]
    low, high = (-150, 250) if volume.modality == "CT" else np.percentile(values, (0.5, 99.5))
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    return Image.fromarray(np.nan_to_num(grey).round().astype(np.uint8)), flat
