"""Stored pixels of one DICOM frame, and their physical values: decompression, colour, modality LUT.

Sizes are compared with the header before anything is decoded.
"""

import numpy as np

from vlm.errors import SampleError
from vlm.media.codestream import codestream_size
from vlm.media.deidentify import guarded, number, quiet, text, value
from vlm.media.dicom_file import PIXELS

COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
KNOWN = (*COLOR, "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
MAX_UNIT = 1e9


def decode_frame(data, index: int, path) -> np.ndarray:
    """One frame: (H, W) stored values, or (H, W, 3) uint8 RGB.

    Raises SampleError: missing_codec (the message names the extra), bad_pixels, too_large.
    """
    from pydicom.pixels import apply_color_lut, pixel_array

    photometric = text(data, "PhotometricInterpretation").upper()
    if photometric and photometric not in KNOWN:
        known = photometric if photometric.startswith("YBR_PARTIAL") else "of the header"
        message = f"photometric interpretation {known} is not supported; supported are {', '.join(KNOWN)}"
        raise SampleError(message, path=path, reason="bad_pixels")
    with guarded("cannot decode the DICOM pixels", path, "bad_pixels"):
        _check_sizes(data, index, path)
    missing = False
    with guarded("cannot decode the DICOM pixels", path, "bad_pixels"):
        try:
            pixels = pixel_array(data, index=index)  # converts YBR to RGB
        except RuntimeError as error:
            missing = "missing dependencies" in str(error) or "no available" in str(error).lower()
            if not missing:
                raise
    if missing:
        name = getattr(data.file_meta.TransferSyntaxUID, "name", "")
        message = (
            f"no decoder for the compression {name!r}: pip install 'radio-vlm[medical]' (JPEG 2000, RLE), "
            "'radio-vlm[dicom-jpeg]' (JPEG, JPEG-LS)"
        )
        raise SampleError(message, path=path, reason="missing_codec")
    if photometric == "PALETTE COLOR" and pixels.ndim == 2:
        with guarded("cannot apply the colour palette", path, "bad_pixels"):
            pixels = apply_color_lut(pixels, data)
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        pixels = pixels[..., :3]
        # 16-bit palettes and RGB keep their high byte
        return (pixels >> 8 if pixels.dtype.itemsize > 1 and pixels.max() > 255 else pixels).astype(np.uint8)
    if pixels.ndim != 2:
        raise SampleError(f"pixels of shape {pixels.shape} are no image", path=path, reason="bad_pixels")
    return pixels


def _check_sizes(data, index: int, path) -> None:
    """Native pixels must be as many bytes as the header says; compressed ones must be of its size."""
    rows, columns = int(data.Rows), int(data.Columns)
    samples = int(number(data, "SamplesPerPixel") or 1)
    frames = max(1, int(number(data, "NumberOfFrames") or 1))
    key = next(key for key in PIXELS if key in data)
    stored = data[key].value
    if stored is None or len(stored) == 0:
        raise SampleError("the DICOM file holds no image: its pixels are empty", path=path, reason="no_pixels")
    if samples not in (1, 3, 4):
        raise SampleError(f"{samples} samples a pixel are no image", path=path, reason="bad_pixels")
    if not data.file_meta.TransferSyntaxUID.is_compressed or key != "PixelData":
        bits = int(number(data, "BitsAllocated") or 0) if key == "PixelData" else 0
        if text(data, "PhotometricInterpretation").upper() == "YBR_FULL_422":
            samples = 2  # two pixels share their colour
        if bits and len(stored) < (needed := rows * columns * samples * frames * bits // 8):
            message = f"the pixels are {len(stored)} bytes where the header needs {needed}: the file is cut off"
            raise SampleError(message, path=path, reason="bad_pixels")
        return
    from pydicom.encaps import get_frame

    stream = get_frame(stored, index, number_of_frames=frames)
    declared = codestream_size(stream)
    if declared is not None and (declared[:2] != (rows, columns) or declared[2] > 4):
        message = (
            f"the compressed picture says {declared[0]} x {declared[1]} pixels, the header {rows} x {columns}: "
            "one of them is damaged"
        )
        raise SampleError(message, path=path, reason="bad_pixels")


def rescale(data, pixels: np.ndarray, places: list, path=None) -> tuple[np.ndarray, float, float]:
    """Stored values -> (float32 physical values, slope, intercept); with a modality LUT instead, slope 1, intercept 0.

    `places`: where per-frame tags may stand (`vlm.media.dicom_file.groups_of`).

    Raises SampleError("bad_pixels") for a slope that is 0 or no number, and for a LUT that cannot be used.
    """
    for place in places:
        inner = value(place, "PixelValueTransformationSequence")
        source = inner[0] if inner else place
        if value(source, "RescaleSlope") is None and value(source, "RescaleIntercept") is None:
            continue
        slope = 1.0 if value(source, "RescaleSlope") is None else number(source, "RescaleSlope")
        intercept = 0.0 if value(source, "RescaleIntercept") is None else number(source, "RescaleIntercept")
        if not slope or intercept is None or max(abs(slope), abs(intercept)) > MAX_UNIT:
            message = "rescale slope or intercept is 0, no number or out of all bounds: the values have no unit"
            raise SampleError(message, path=path, reason="bad_pixels")
        return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept), slope, intercept
    if value(data, "ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        with guarded("cannot apply the modality LUT", path, "bad_pixels"):
            return np.asarray(apply_modality_lut(pixels, data), dtype=np.float32), 1.0, 0.0
    with quiet():
        return pixels.astype(np.float32), 1.0, 0.0
