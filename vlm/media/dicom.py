"""DICOM files as a model can look at them: physical values, and an 8-bit image through the file's own window.

Order of the standard: stored values → modality LUT (rescale slope and intercept: Hounsfield units) → window or VOI LUT
(given, or of the header, or from minimum to maximum) → inversion for MONOCHROME1. Colour is converted to RGB. Of a
multi-frame file one frame is shown; `vlm.media.dicom_series` makes volumes. What leaves of the header:
`vlm.media.deidentify`.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vlm.errors import SampleError
from vlm.media.deidentify import guarded, numbers, safe_header, text
from vlm.media.dicom_file import BURNED_IN, find_number_tuple, groups_of, notes, num_frames, open_dicom
from vlm.media.dicom_pixels import decode_frame, rescale
from vlm.media.windows import file_table, file_windows, full_range, given_window, padding_value

MAX_PIXELS = 178_956_970

logger = logging.getLogger(__name__)


@dataclass
class DicomImage:
    """One frame of a DICOM file.

    Attributes:
        array: (H, W) float32 after rescale slope and intercept (HU for CT), or (H, W, 3) uint8 for colour.
        image: The same through the window, 8-bit RGB.
        modality: "CT", "MR", ... or "" where the header is silent.
        spacing: (row, column) distance of pixel centres in mm, or None.
        window: (center, width) that was applied; None for colour and where the file's VOI LUT was used.
        num_frames: Frames in the file.
        frame: Index of the frame shown.
        header: The fields of `vlm.media.deidentify.ALLOWED` that are stated: body part, view, photometric
            interpretation, ... Nothing else of the header leaves.
        warnings: What a reader must know: text burned into the pixels, a screenshot.
    """

    array: np.ndarray
    image: Image.Image
    modality: str
    spacing: tuple[float, float] | None
    window: tuple[float, float] | None
    num_frames: int = 1
    frame: int = 0
    header: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_dicom(
    path,
    frame: int | str = "middle",
    window: tuple[float, float] | str | int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> DicomImage:
    """Opens a DICOM file (or binary file object).

    Args:
        frame: Of a multi-frame file: "first", "middle" or an index.
        window: Instead of the header's first: (center, width) in physical units, the name of a preset for CT ("lung",
            "soft tissue", "brain", "bone"), or which of the header's windows, from 0.

    Raises:
        SampleError: missing_file, empty_file, not_dicom, not_an_image, no_pixels, missing_codec (the message names the
            extra), bad_pixels, too_large, bad_frame, bad_window, unknown_window, window_without_units.
    """
    name = None if hasattr(path, "read") else Path(os.path.expanduser(path))
    data = open_dicom(path)
    with guarded("cannot interpret the DICOM file", name, "bad_pixels"):
        rows, columns = int(data.Rows), int(data.Columns)
        if rows * columns > max_pixels:
            raise SampleError(f"DICOM of {rows} x {columns} is too large", path=name, reason="too_large")
        count = num_frames(data, name)
        index = {"first": 0, "middle": count // 2}.get(frame, frame)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise SampleError(f"frame {frame!r} is not in a file of {count} frames", path=name, reason="bad_frame")
        pixels = decode_frame(data, index, name)
        places = groups_of(data, index)
        header = safe_header(data)
        warnings = notes(data)
        common = {
            "modality": header.get("Modality", ""),
            "spacing": find_number_tuple(places, "PixelMeasuresSequence", "PixelSpacing", 2)
            or numbers(data, "ImagerPixelSpacing", 2),
            "num_frames": count,
            "frame": index,
            "header": header,
            "warnings": warnings,
        }
        if pixels.ndim == 3:
            found = DicomImage(pixels, Image.fromarray(pixels).convert("RGB"), window=None, **common)
        else:
            values, slope, intercept = rescale(data, pixels, places, name)
            shown, used = _shown(data, values, places, window, common["modality"], (slope, intercept), name)
            found = DicomImage(values, Image.fromarray(shown).convert("RGB"), window=used, **common)
    for words in warnings:  # a data set may be all screenshots; names in the pixels are worth a line each time
        logger.log(logging.WARNING if words == BURNED_IN else logging.INFO, "DICOM image: %s", words)
    return found


def _shown(data, values: np.ndarray, places: list, window, modality: str, units: tuple[float, float], path):
    """(H, W) uint8 grey, and the (center, width) it went through, or None for a VOI LUT."""
    own = file_windows(places)
    chosen = None
    if isinstance(window, int) and not isinstance(window, bool):
        if not 0 <= window < len(own):
            message = f"window {window} is not in a file of {len(own)} windows; they count from 0"
            raise SampleError(message, path=path, reason="bad_window")
        chosen = own[window]
    elif window is not None:
        chosen = given_window(window, modality, path)
    elif own:
        chosen = own[0]
    elif table := file_table(places):
        chosen = table
    chosen = chosen or full_range(values, padding_value(data, *units))
    grey = chosen.apply(values)
    if text(data, "PhotometricInterpretation").upper() == "MONOCHROME1":
        grey = 255 - grey
    return grey, (chosen.center, chosen.width) if hasattr(chosen, "center") else None
