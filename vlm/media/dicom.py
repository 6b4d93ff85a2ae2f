"""DICOM files as a model can look at them: physical values, and an 8-bit image through the file's own window.

Order of the standard: stored values → modality LUT (rescale slope and intercept: Hounsfield units) → window (of the
header, or from minimum to maximum) → inversion for MONOCHROME1. Colour is converted to RGB. Of a multi-frame file one
frame is shown.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vlm.errors import SampleError

MAX_PIXELS = 178_956_970


@dataclass
class DicomImage:
    """One frame of a DICOM file.

    Attributes:
        array: (H, W) float32 after rescale slope and intercept (HU for CT), or (H, W, 3) uint8 for colour.
        image: The same through the window, 8-bit RGB.
        modality: "CT", "MR", ... or "".
        spacing: (row, column) distance of pixel centres in mm, or None.
        window: (center, width) that was applied, or None for colour.
        num_frames: Frames in the file.
        frame: Index of the frame shown.
        header: Selected text fields: body part, series description, photometric interpretation.
    """

    array: np.ndarray
    image: Image.Image
    modality: str
    spacing: tuple[float, float] | None
    window: tuple[float, float] | None
    num_frames: int = 1
    frame: int = 0
    header: dict[str, str] = field(default_factory=dict)


def read_dicom(
    path, frame: int | str = "middle", window: tuple[float, float] | None = None, max_pixels: int = MAX_PIXELS
) -> DicomImage:
    """Opens a DICOM file (or binary file object).

    Args:
        frame: Of a multi-frame file: "first", "middle" or an index.
        window: (center, width) in physical units instead of the header's.

    Raises:
        SampleError: missing_file, empty_file, not_dicom, no_pixels, missing_codec (the message names the extra),
            bad_pixels, too_large, bad_frame.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("reading DICOM files needs pydicom: pip install 'radio-vlm[medical]'") from error
    name = None if hasattr(path, "read") else Path(os.path.expanduser(path))
    if name is not None and not name.is_file():
        raise SampleError("DICOM file does not exist", path=name, reason="missing_file")
    if name is not None and name.stat().st_size == 0:
        raise SampleError("DICOM file is empty", path=name, reason="empty_file")
    try:
        data = pydicom.dcmread(path if name is None else name, force=True)
        has_pixels = any(key in data for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    except Exception as error:  # pydicom raises many kinds on damaged headers
        raise SampleError(f"cannot read DICOM header: {error}", path=name, reason="not_dicom") from error
    if not has_pixels or not data.get("Rows") or not data.get("Columns"):
        kind = "not_dicom" if len(data) < 3 else "no_pixels"
        raise SampleError("the DICOM file holds no image", path=name, reason=kind)
    if int(data.Rows) * int(data.Columns) > max_pixels:
        raise SampleError(f"DICOM of {data.Rows} x {data.Columns} is too large", path=name, reason="too_large")
    if "TransferSyntaxUID" not in getattr(data, "file_meta", {}):
        # Files without meta header are in the standard's default encoding.
        if not hasattr(data, "file_meta"):
            data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    count = max(1, int(data.get("NumberOfFrames") or 1))
    index = {"first": 0, "middle": count // 2}.get(frame, frame)
    if not isinstance(index, int) or not 0 <= index < count:
        raise SampleError(f"frame {frame!r} is not in a file of {count} frames", path=name, reason="bad_frame")
    pixels = _decode(data, index, name)
    spacing = data.get("PixelSpacing") or data.get("ImagerPixelSpacing")
    common = {
        "modality": str(data.get("Modality") or ""),
        "spacing": tuple(float(x) for x in spacing) if spacing else None,
        "num_frames": count,
        "frame": index,
        "header": {
            key: str(data.get(key) or "")
            for key in ("BodyPartExamined", "SeriesDescription", "PhotometricInterpretation", "StudyDescription")
        },
    }
    try:
        if pixels.ndim == 3:
            return DicomImage(pixels, Image.fromarray(pixels).convert("RGB"), window=None, **common)
        values, shared = _rescale(data, pixels, index)
        window = window or _header_window(data, shared) or _full_window(values)
        shown = _apply_window(values, *window)
        if data.get("PhotometricInterpretation") == "MONOCHROME1":
            shown = 255 - shown
        return DicomImage(values, Image.fromarray(shown).convert("RGB"), window=window, **common)
    except (ValueError, TypeError, AttributeError) as error:
        raise SampleError(f"cannot interpret DICOM pixels: {error}", path=name, reason="bad_pixels") from error


def _decode(data, index: int, name) -> np.ndarray:
    """One frame: (H, W) stored values, or (H, W, 3) uint8 RGB."""
    from pydicom.pixels import apply_color_lut, pixel_array

    try:
        pixels = pixel_array(data, index=index)  # converts YBR to RGB
    except RuntimeError as error:
        syntax = data.file_meta.TransferSyntaxUID
        message = (
            f"no decoder for the compression {getattr(syntax, 'name', syntax)!r}: pip install 'radio-vlm[medical]' "
            f"(pylibjpeg with its plug-ins); pydicom says: {str(error).splitlines()[0]}"
        )
        raise SampleError(message, path=name, reason="missing_codec") from error
    except Exception as error:
        raise SampleError(f"cannot decode DICOM pixels: {error}", path=name, reason="bad_pixels") from error
    if data.get("PhotometricInterpretation") == "PALETTE COLOR" and pixels.ndim == 2:
        try:
            pixels = apply_color_lut(pixels, data)
        except (ValueError, AttributeError) as error:
            raise SampleError(f"cannot apply the colour palette: {error}", path=name, reason="bad_pixels") from error
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        pixels = pixels[..., :3]
        # 16-bit palettes and RGB keep their high byte
        return (pixels >> 8 if pixels.dtype.itemsize > 1 and pixels.max() > 255 else pixels).astype(np.uint8)
    if pixels.ndim != 2:
        raise SampleError(f"pixels of shape {pixels.shape} are no image", path=name, reason="bad_pixels")
    return pixels


def _rescale(data, pixels: np.ndarray, index: int) -> tuple[np.ndarray, list]:
    """Stored values -> float32 physical values, and the places (frame, shared, top) where per-frame tags may stand."""
    places = [data]
    for key, at in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        groups = data.get(key)
        if groups and at < len(groups):
            places.insert(0, groups[at])
    slope, intercept = 1.0, 0.0
    for place in places:
        inner = place.get("PixelValueTransformationSequence")
        source = inner[0] if inner else place
        if source.get("RescaleSlope") is not None or source.get("RescaleIntercept") is not None:
            slope = float(source.get("RescaleSlope") if source.get("RescaleSlope") is not None else 1)
            intercept = float(source.get("RescaleIntercept") or 0)
            break
    else:
        if data.get("ModalityLUTSequence"):
            from pydicom.pixels import apply_modality_lut

            return np.asarray(apply_modality_lut(pixels, data), dtype=np.float32), places
    return pixels.astype(np.float32) * slope + intercept, places


def _header_window(data, places: list) -> tuple[float, float] | None:
    """The first window of the frame, the shared groups or the file; None when there is none that shows anything."""
    for place in places:
        inner = place.get("FrameVOILUTSequence")
        source = inner[0] if inner else place
        center, width = source.get("WindowCenter"), source.get("WindowWidth")
        if center is None or width is None or center == "" or width == "":
            continue
        center = center[0] if hasattr(center, "__len__") and not isinstance(center, str) else center
        width = width[0] if hasattr(width, "__len__") and not isinstance(width, str) else width
        if float(width) >= 1:
            return float(center), float(width)
    return None


def _full_window(values: np.ndarray) -> tuple[float, float]:
    """The window from the smallest to the largest value."""
    low, high = float(values.min()), float(values.max())
    return (low + high + 1) / 2, high - low + 1


def _apply_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Linear VOI function of the standard (PS3.3 C.11.2.1.2.1) to 0..255 uint8."""
    scaled = (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    return (np.clip(np.nan_to_num(scaled), 0, 1) * 255).round().astype(np.uint8)
