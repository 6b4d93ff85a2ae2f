"""Opens the header of a DICOM file and refuses, with the reason, what is no image: reports, masks, plans, waveforms.

Bounded: a compressed header (deflate) is unpacked only up to a limit. No message repeats a header's value.
"""

import io
import os
import zlib
from pathlib import Path

from vlm.errors import SampleError
from vlm.media.deidentify import guarded, number, numbers, text, value

MAX_FILE_BYTES = 2**32
MAX_FRAMES = 20_000
DEFLATED = "1.2.840.10008.1.2.1.99"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# SOP classes by the start of their UID (PS3.4 B.5): what they are, and what to do instead.
NO_IMAGES = {
    _STORAGE + "88.": "a structured report",
    _STORAGE + "11.": "a presentation state (how another image is to be shown)",
    _STORAGE + "66.4": "a segmentation (a mask of another series)",
    _STORAGE + "66.5": "a surface segmentation",
    _STORAGE + "66.7": "a segmentation (a mask of another series)",
    _STORAGE + "66": "raw data or a registration",
    _STORAGE + "481.3": "a radiotherapy structure set (contours on another series)",
    _STORAGE + "481.4": "a radiotherapy treatment record",
    _STORAGE + "481.5": "a radiotherapy plan",
    _STORAGE + "481.8": "a radiotherapy plan",
    _STORAGE + "104.1": "an encapsulated PDF: save the PDF itself and use it as a document",
    _STORAGE + "104.": "an encapsulated document",
    _STORAGE + "9.": "a waveform (ECG, audio)",
    "1.2.840.10008.1.3.10": "a DICOMDIR (the index of a folder): give the folder itself",
}
NO_IMAGE_MODALITIES = {
    "SR": "a structured report",
    "KO": "a structured report (key object selection)",
    "PR": "a presentation state (how another image is to be shown)",
    "SEG": "a segmentation (a mask of another series)",
    "REG": "a registration",
    "RTSTRUCT": "a radiotherapy structure set (contours on another series)",
    "RTPLAN": "a radiotherapy plan",
    "RTRECORD": "a radiotherapy treatment record",
    "DOC": "an encapsulated document",
    "ECG": "a waveform (ECG)",
}
BURNED_IN = "the header says that text is burned into the pixels: it may name the patient"
SECONDARY_CAPTURE = _STORAGE + "7"


def open_dicom(source, header_only: bool = False):
    """A path or binary file -> pydicom dataset of an image object; `header_only` leaves out the pixels.

    Raises:
        ImportError: pydicom is not installed.
        SampleError: missing_file, empty_file, not_dicom, too_large, not_an_image (the message says what it is),
            no_pixels (only where pixels are read).
    """
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("reading DICOM files needs pydicom: pip install 'radio-vlm[medical]'") from error
    name = None if hasattr(source, "read") else Path(os.path.expanduser(source))
    if name is not None and not name.is_file():
        raise SampleError("DICOM file does not exist", path=name, reason="missing_file")
    if name is not None and name.stat().st_size == 0:
        raise SampleError("DICOM file is empty", path=name, reason="empty_file")
    if name is not None and name.stat().st_size > MAX_FILE_BYTES:
        raise SampleError(f"DICOM file is larger than {MAX_FILE_BYTES} bytes", path=name, reason="too_large")
    with guarded("cannot read the DICOM header", name, "not_dicom"):
        _check_deflate(source if name is None else name, name)
        data = pydicom.dcmread(source if name is None else name, force=True, stop_before_pixels=header_only)
        _add_meta(data)
        elements = len(data)
        if elements < 3:
            raise SampleError("the file is no DICOM file", path=name, reason="not_dicom")
        if kind := no_image(data):
            raise SampleError(f"the DICOM file is {kind}, not an image", path=name, reason="not_an_image")
        if not header_only and not any(key in data for key in PIXELS):
            raise SampleError("the DICOM file holds no image: it has no pixels", path=name, reason="no_pixels")
        rows, columns = number(data, "Rows"), number(data, "Columns")
        if not header_only and not (rows and columns):
            raise SampleError("the DICOM file holds no image: no rows or columns", path=name, reason="no_pixels")
    return data


def no_image(data) -> str:
    """What the object is ("a structured report") where it is no image; "" for images."""
    uid = text(data, "SOPClassUID") or text(getattr(data, "file_meta", {}), "MediaStorageSOPClassUID")
    for start in sorted(NO_IMAGES, key=len, reverse=True):
        if uid == start or uid.startswith(start if start.endswith(".") else f"{start}."):
            return NO_IMAGES[start]
    return NO_IMAGE_MODALITIES.get(text(data, "Modality").upper(), "")


def is_capture(data) -> bool:
    """Whether this is a secondary capture: a screenshot or scan, whose values are no measurements."""
    uid = text(data, "SOPClassUID")
    return uid == SECONDARY_CAPTURE or uid.startswith(f"{SECONDARY_CAPTURE}.")


def num_frames(data, path=None) -> int:
    """Frames of the file. Raises SampleError("too_large") for more than `MAX_FRAMES`."""
    count = int(number(data, "NumberOfFrames") or 1)
    if count > MAX_FRAMES:
        raise SampleError(f"{count} frames are more than {MAX_FRAMES}", path=path, reason="too_large")
    return max(1, count)


def groups_of(data, frame: int) -> list:
    """Where a tag of a frame may stand: its per-frame functional groups, the shared ones, the file itself."""
    places = [data]
    for key, at in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
        groups = value(data, key)
        if groups and at < len(groups):
            places.insert(0, groups[at])
    return places


def find_number_tuple(places: list, sequence: str, key: str, count: int) -> tuple[float, ...] | None:
    """`count` numbers of `key` from the first place that has it, inside `sequence` or plain."""
    for place in places:
        inner = value(place, sequence)
        found = numbers(inner[0] if inner else place, key, count)
        if found is not None:
            return found
    return None


def notes(data) -> tuple[str, ...]:
    """What a reader must know of the image: text burned into it, a screenshot."""
    found = []
    if text(data, "BurnedInAnnotation").upper() == "YES":
        found.append(BURNED_IN)
    if is_capture(data):
        found.append("secondary capture (a screenshot or scan): its values are no measurements")
    return tuple(found)


def _add_meta(data) -> None:
    """Files without meta header are in the standard's default encoding."""
    import pydicom

    if getattr(data, "file_meta", None) is None:
        data.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in data.file_meta:
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian


def _check_deflate(source, name) -> None:
    """Refuses a deflated file that unpacks to more than the limit (pydicom unpacks without one)."""
    from pydicom.filereader import read_file_meta_info

    raw = source if hasattr(source, "read") else None
    place = raw.tell() if raw is not None else 0
    file = io.BytesIO(raw.read()) if raw is not None else open(source, "rb")  # noqa: SIM115 - closed below
    try:
        if raw is not None:
            raw.seek(place)
        head = file.read(1024)
        if head[128:132] != b"DICM" or DEFLATED.encode() not in head:
            return
        file.seek(0)
        meta = read_file_meta_info(file) if raw is not None else read_file_meta_info(source)
        file.seek(132 + 12 + int(meta.get("FileMetaInformationGroupLength", 0)))
        unpacker, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := file.read(2**16):
            while chunk:
                total += len(unpacker.decompress(chunk, 2**22))
                chunk = unpacker.unconsumed_tail
                if total > MAX_FILE_BYTES // 16:
                    message = f"the deflated file unpacks to more than {MAX_FILE_BYTES // 16} bytes"
                    raise SampleError(message, path=name, reason="too_large")
    finally:
        file.close()
