"""Copies of DICOM and NIfTI files that keep pixels and geometry and nothing that names a person, a place or a day.

Experts need Hounsfield units and headers, a test set may name no patient: so of a DICOM header only the elements listed
here are written anew, UIDs as their hashes. Free text does not leave, but for the word of the MRI sequence that it
names. Pixels stay as they are, compressed ones too: text burned into them, or put into their code by an encoder (the
comments of a JPEG), cannot be seen here.
"""

import gzip
import os
import re
import zlib
from pathlib import Path
from typing import Any

from vlm.errors import SampleError
from vlm.media.deidentify import ALLOWED, guarded, safe_header
from vlm.media.dicom_file import open_dicom
from vlm.media.image import is_dicom
from vlm.media.mr_sequence import sequence_of
from vlm.media.nifti import is_nifti

PIXELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "PixelAspectRatio", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "LUTDescriptor", "LUTData",
    "WindowCenter", "WindowWidth", "VOILUTSequence", "PixelIntensityRelationshipSign",
)  # fmt: skip
GEOMETRY = (
    "PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
    "SpacingBetweenSlices", "SliceLocation", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIndex",
    "InStackPositionNumber", "DimensionIndexValues",
)  # fmt: skip
GROUPS = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence",
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence",
    "FrameContentSequence",
)  # fmt: skip
KEPT = frozenset((*PIXELS, *GEOMETRY, *GROUPS, "SOPClassUID"))
WORDS = {  # elements of words: only these words
    "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", "SIGMOID"),
    "RescaleType": ("HU", "US", "OD", "MGML", "Z_EFF", "ED"),
    "PresentationLUTShape": ("IDENTITY", "INVERSE"),
    "PixelIntensityRelationship": ("LIN", "LOG", "DISP"),
    "ImageType": ("ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "VOLUME", "NONE"),
}
HASHED = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
NUMBERS = re.compile(r"[\d.eE+\-\\ ]*")
# Value representations that hold numbers or pixels alone. A file states them itself: of any other, only numbers stay.
BINARY = ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "OB", "OW", "OL", "OV", "OF", "OD")
NIFTI_TEXTS = {348: ((4, 14), (14, 32), (148, 228), (228, 252), (328, 344)), 540: ((240, 320), (320, 344), (508, 524))}


def plain_copy(source: Path, target: Path) -> None:
    """Write the copy of a DICOM or NIfTI file, whole or not at all. Raises SampleError: those of reading."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        if is_nifti(source):
            partial.write_bytes(plain_nifti(source))
        else:
            with guarded("cannot copy the DICOM file", source, "bad_pixels"):
                plain_dicom(open_dicom(source)).save_as(partial, enforce_file_format=True)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def plain_tree(source: Path, target: Path) -> None:
    """Copies of all images of a folder, files and folders numbered; a sequence that a name states is kept as a word."""
    entries = sorted(source.iterdir())
    target.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(entries):
        word = sequence_word(entry)
        name = f"{number:05d}" + (f"_{word}" if word else "")
        if entry.is_symlink() and entry.is_dir():
            continue  # as the readers do: it may lead anywhere, also back
        if entry.is_dir():
            plain_tree(entry, target / name)
        elif is_nifti(entry):
            plain_copy(entry, target / f"{name}.nii.gz")
        elif is_dicom(entry):
            plain_copy(entry, target / f"{name}.dcm")


def sequence_word(path: Path) -> str | None:
    """The MRI sequence that the last fitting word of a name states, as the expert BRATS reads names."""
    from vlm.experts.brats import WORDS as SEQUENCES

    words = re.split(r"[_\-. ]+", path.name.lower())
    return next((SEQUENCES[word] for word in reversed(words) if word in SEQUENCES), None)


def plain_dicom(data: Any) -> Any:
    """A new `pydicom` dataset with what may leave of `data`."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    plain = _kept(data)
    for keyword, word in safe_header(data).items():
        setattr(plain, keyword, word)
    for keyword in HASHED:
        if uid := str(data.get(keyword) or ""):
            setattr(plain, keyword, generate_uid(entropy_srcs=["radio-vlm", uid]))
    if word := sequence_of(data):
        plain.SeriesDescription = word
    plain.PatientIdentityRemoved = "YES"
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    plain.file_meta.MediaStorageSOPClassUID = str(data.get("SOPClassUID") or "")
    plain.file_meta.MediaStorageSOPInstanceUID = plain.get("SOPInstanceUID") or generate_uid()
    return plain


def _kept(data: Any) -> Any:
    """The listed elements of a dataset, those of its sequences too."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    plain = Dataset()
    for element in data:
        keyword = element.keyword
        if keyword in WORDS:
            said = [element.value] if isinstance(element.value, str) else list(element.value or [])
            if words := [word for word in said if word in WORDS[keyword]]:
                setattr(plain, keyword, words)
        elif keyword not in KEPT or keyword in ALLOWED:
            continue
        elif element.VR == "SQ":
            setattr(plain, keyword, Sequence([_kept(item) for item in element.value]))
        elif (
            element.VR in BINARY
            or " or " in element.VR
            or NUMBERS.fullmatch(str(element.value).strip("[]").replace(",", "\\"))
        ):
            plain.add(element)
    return plain


def plain_nifti(path: Path) -> bytes:
    """A gzipped NIfTI whose text fields and extensions are zeros. Raises SampleError for what is no NIfTI file."""
    content = path.read_bytes()
    try:
        content = bytearray(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except (OSError, EOFError, zlib.error) as error:
        raise SampleError("cannot unpack the NIfTI file", path=path, reason="bad_nifti") from error
    order = "little" if int.from_bytes(content[:4], "little") in NIFTI_TEXTS else "big"
    size = int.from_bytes(content[:4], order)
    if size not in NIFTI_TEXTS or len(content) < size + 4:
        raise SampleError("not a NIfTI file", path=path, reason="bad_nifti")
    for start, end in NIFTI_TEXTS[size]:
        content[start:end] = bytes(end - start)
    return gzip.compress(bytes(_without_extensions(content, size, order)), 6, mtime=0)


def _without_extensions(content: bytearray, size: int, order: str) -> bytearray:
    """Zeros between the header and the voxels."""
    import struct

    sign = "<" if order == "little" else ">"
    start = struct.unpack_from(f"{sign}f", content, 108)[0] if size == 348 else (
        struct.unpack_from(f"{sign}q", content, 168)[0])  # fmt: skip
    if not size <= start <= len(content):  # NaN too: where the voxels begin is unknown, so what is text is unknown
        raise SampleError("its header does not say where the voxels begin", reason="bad_nifti")
    content[size : int(start)] = bytes(int(start) - size)
    return content
