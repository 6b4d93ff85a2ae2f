"""What the header of an image file says before an expert may see it: modality, body part, size, and whose image.

Only the header is believed, never the name of a file. Identifiers are read for one purpose: to take them out of
whatever an expert says (`vlm.experts.private_text`). Nothing here decodes a pixel.
"""

import functools
import gzip
import hashlib
import logging
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.media.deidentify import quiet
from vlm.media.dicom_file import NO_IMAGE_MODALITIES
from vlm.media.modality import MODALITIES, normal_body_part

logger = logging.getLogger(__name__)

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds .7.1 ... .7.4
MAX_FILES = 4096
SILENT = "of no stated modality"
IDENTIFIERS = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientAddress",
    "PatientTelephoneNumbers", "ResponsiblePerson", "AccessionNumber", "StudyID", "StationName", "DeviceSerialNumber",
    "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
    "FrameOfReferenceUID",
)  # fmt: skip
# Modalities of DICOM (PS3.3 C.7.3.1.1.1) that show nothing or that `vlm.media` has no word for.
OTHERS = (
    "AR", "AS", "BDUS", "BI", "BMD", "CD", "CF", "CFM", "CP", "CS", "DD", "DF", "DG", "DM", "DMS", "DS", "EC", "EEG",
    "EMG", "EOG", "EPS", "FA", "FID", "FS", "HC", "HD", "IO", "IOL", "KER", "LEN", "LP", "LS", "M3D", "MA", "MS", "OAM",
    "OPM", "OPR", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PLAN", "POS", "RESP", "SRF", "SMR", "ST", "TG", "VA", "VF",
)  # fmt: skip
CODES = {*MODALITIES, *NO_IMAGE_MODALITIES, *OTHERS}
NEEDED = (*IDENTIFIERS, "Modality", "BodyPartExamined", "SOPClassUID", "Rows", "Columns", "NumberOfFrames")


@dataclass(frozen=True)
class ImageFacts:
    """Attributes:
    modality: DICOM modality, or None where nothing or nothing usable is stated.
    kind: the image in words that may be shown to anyone, e.g. `CT`, `of no stated modality`.
    voxels: pixels of all slices and frames, 0 where unknown.
    shape: (rows, columns) of a slice, None where unknown.
    size: bytes of the file, or of all files of a folder.
    identifiers: strings of the header that name a person, a place or an examination.
    """

    modality: str | None
    kind: str
    voxels: int = 0
    size: int = 0
    identifiers: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None
    series: bool = False
    """Whether it is a folder: of one series, or of several that together are one examination."""
    body_part: str | None = None
    """The header's body part as a term of `vlm.media.modality.BODY_PARTS`; None where it states none of them. Of a
    series the one that all its images state that state any."""


def image_facts(path: str | Path | None) -> ImageFacts:
    """Facts about a DICOM file, a folder with one DICOM series, a NIfTI file or a picture. Never raises for bad files.

    Raises ImportError for a DICOM file without pydicom.
    """
    if path is None:
        return ImageFacts(None, "no file")
    try:
        state = Path(path).stat()
    except (OSError, ValueError):
        return ImageFacts(None, "a file that is not there")
    return _facts(str(path), state.st_mtime_ns, state.st_size)


def modality_of_file(path: str | Path | None, stated: str | None = None) -> str | None:
    """The header's modality; where it is silent (NIfTI, PNG) the one that is stated beside the file. None: neither.

    What is no image to look at (a structured report, a screenshot) has none, whatever is stated.
    """
    facts = image_facts(path)
    return stated if stated and facts.modality is None and facts.kind.startswith(SILENT) else facts.modality


@functools.lru_cache(maxsize=64)
def _facts(path: str, changed: int, size: int) -> ImageFacts:
    try:
        if Path(path).is_dir():
            return _folder(Path(path))
        with open(path, "rb") as file:
            head = file.read(352)
        if head[128:132] == b"DICM":
            return _dicom(path, size)
        if head[:2] == b"\x1f\x8b" or head[344:347] in (b"n+1", b"ni1"):
            return ImageFacts(None, f"{SILENT} (NIfTI)", _nifti_voxels(path, head), size)
        shape = _picture_shape(path)
        return ImageFacts(None, SILENT, shape[0] * shape[1] if shape else 0, size, shape=shape)
    except ImportError:
        raise
    except Exception as error:  # a damaged header may raise anything
        logger.warning("cannot read an image's header: %s", type(error).__name__)
        return ImageFacts(None, "unreadable", size=size)


def _dicom(path: str, size: int) -> ImageFacts:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("reading DICOM needs pydicom: pip install 'radio-vlm[medical]'") from error
    with quiet():  # pydicom's warnings and log lines name the file and quote the header
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(NEEDED))
        return _stated(data, size)


def _stated(data: Any, size: int) -> ImageFacts:
    """What a header states, and whom it names."""
    found = []
    for keyword in IDENTIFIERS:
        if keyword not in data:
            continue
        element = data[keyword]
        texts = [str(one).strip() for one in (element.value if element.VM > 1 else [element.value]) if one is not None]
        found += ["^".join(text.split()) if element.VR == "PN" else text for text in texts if text]
    modality = str(data.get("Modality") or "").strip()
    modality = modality if modality in CODES else None  # a field that was typed into may hold anything
    shape = int(data.get("Rows") or 0), int(data.get("Columns") or 0)
    voxels = shape[0] * shape[1] * max(1, int(data.get("NumberOfFrames") or 1))
    kind = modality or SILENT
    if not voxels:
        report = "a structured report" if modality == "SR" else f"a {kind} object" if modality else "a file"
        modality, kind = None, f"{report} without an image"
    elif f"{data.get('SOPClassUID') or ''}.".startswith(f"{SECONDARY_CAPTURE}."):
        modality, kind = None, "a secondary capture (a screenshot)"
    part = normal_body_part(data.get("BodyPartExamined")) or None
    names = tuple(dict.fromkeys(found))
    return ImageFacts(modality, kind, voxels, size, names, shape if voxels else None, body_part=part)


def _folder(path: Path) -> ImageFacts:
    """A series: every DICOM image in it must state the same modality; objects without image and captures are passed."""
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    size = sum(file.stat().st_size for file in files)
    if len(files) > MAX_FILES:
        return ImageFacts(None, f"a folder of more than {MAX_FILES} files", 0, size)
    facts = []
    for file in files:
        with open(file, "rb") as opened:
            if opened.read(132)[128:] == b"DICM":
                facts.append(_dicom(str(file), file.stat().st_size))
    found = {one.modality for one in facts if one.modality}
    identifiers = tuple(dict.fromkeys(text for one in facts for text in one.identifiers))
    voxels = sum(one.voxels for one in facts)
    if len(found) == 1:
        parts = {one.body_part for one in facts if one.modality and one.body_part}
        part = parts.pop() if len(parts) == 1 else None
        return ImageFacts(*found, *found, voxels, size, identifiers, series=True, body_part=part)
    kind = f"a folder of several modalities ({', '.join(sorted(found))})" if found else f"{SILENT} (a folder)"
    return ImageFacts(None, kind, voxels, size, identifiers, series=True)


def _nifti_voxels(path: str, head: bytes) -> int:
    if head[:2] == b"\x1f\x8b":
        with gzip.open(path) as file:
            head = file.read(352)
    order = "<" if head[:4] == b"\x5c\x01\x00\x00" else ">"
    dimensions = struct.unpack(f"{order}8h", head[40:56])
    voxels = 1
    for count in dimensions[1 : 1 + min(max(dimensions[0], 0), 7)]:
        voxels *= max(1, count)
    return voxels


def _picture_shape(path: str) -> tuple[int, int] | None:
    """(rows, columns), upright, of what Pillow opens, from its header; None for other files."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: lies on its side
                return (image.width, image.height) if turned else (image.height, image.width)
    except Image.DecompressionBombError:
        return 2**31, 2**31
    except (OSError, ValueError, SyntaxError):
        return None


def file_digest(path: str | Path | None) -> str | None:
    """First 16 hex digits of the SHA-256 of a file's content (a folder: of its files' names' order and contents).

    This is how a log names an image: the same image has the same digest, and the digest tells nobody whose it is.
    """
    if path is None:
        return None
    try:
        state = Path(path).stat()
        return _digest(str(path), state.st_mtime_ns, state.st_size)
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=256)
def _digest(path: str, changed: int, size: int) -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]:
        if file.is_file():
            with open(file, "rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]
