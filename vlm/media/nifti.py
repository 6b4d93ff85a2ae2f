"""NIfTI files (.nii, .nii.gz) as volumes: scaled values, RAS orientation, nothing read beyond what the header declares.

nibabel reads the header and knows its affines; the voxels are read here, so that a small compressed file cannot unpack
to more than its shape says, and its shape is bounded. NIfTI states no modality, so whoever needs it asks the user.
Format: nifti1.h and nifti2.h (nifti.nimh.nih.gov).
"""

import gzip
import io
import os
import zlib
from pathlib import Path

import numpy as np

from vlm.errors import SampleError
from vlm.media.deidentify import guarded
from vlm.media.modality import require_modality
from vlm.media.volume import MAX_VOXELS, Volume, check_voxels, ras_axes, to_ras

SUFFIXES = (".nii", ".nii.gz")
MAX_OFFSET = 2**24  # bytes of extensions, which are skipped unread
MAX_FRAMES = 4096
MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}


def is_nifti(source) -> bool:
    """By the name; NIfTI's magic stands too far behind the start to tell compressed files."""
    return str(source).lower().endswith(SUFFIXES)


def read_nifti(
    path,
    modality: str | None = None,
    frame: int | None = None,
    max_voxels: int = MAX_VOXELS,
    outline: bool = False,
    turn: bool = True,
) -> Volume:
    """A NIfTI file (a path, or its bytes) -> a volume in RAS orientation.

    Args:
        modality: What it shows ("CT", "MR", ...): the file does not say; without it `Volume.modality` is "".
        frame: Which, from 0, of a 4D file; it may be left out where there is only one.
        outline: Read the header alone; the voxels are zeros that take no memory.
        turn: To RAS; without it the axes stay as the file has them.

    Raises:
        ImportError: nibabel is not installed.
        SampleError: missing_file, empty_file, not_nifti, too_large, bad_pixels (cut off, colour or complex voxels),
            bad_affine, bad_frame, unknown_modality.
    """
    volumes = _read(path, modality, frame, max_voxels, outline, turn)
    if len(volumes) > 1:
        message = f"the NIfTI file holds {len(volumes)} volumes (4D): choose one with frame=0 to {len(volumes) - 1}"
        raise SampleError(message, path=_name(path), reason="bad_frame")
    return volumes[0]


def read_nifti_frames(
    path, names: tuple[str, ...] | None = None, modality: str | None = None, max_voxels: int = MAX_VOXELS
) -> dict[str, Volume]:
    """A 4D NIfTI file -> {name: volume}; without `names` they are "frame 0", "frame 1", ...

    Raises SampleError as `read_nifti`, bad_channels where `names` are not as many as the frames or not different.
    """
    volumes = _read(path, modality, None, max_voxels)
    names = tuple(f"frame {i}" for i in range(len(volumes))) if names is None else tuple(names)
    if len(names) != len(volumes) or len(set(names)) != len(names):
        message = f"{len(names)} names ({', '.join(map(str, names))}) for a NIfTI file of {len(volumes)} volumes"
        raise SampleError(message, path=path, reason="bad_channels")
    return dict(zip(names, volumes))


def _name(source) -> Path | None:
    """The path of a file; None for bytes."""
    return None if isinstance(source, bytes) else Path(os.path.expanduser(source))


def _read(source, modality, frame, max_voxels: int, outline: bool = False, turn: bool = True) -> list[Volume]:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError("reading NIfTI files needs nibabel: pip install 'radio-vlm[medical]'") from error
    path, turned = _name(source), to_ras if turn else _as_stored
    if path is not None and not path.is_file():
        raise SampleError("NIfTI file does not exist", path=path, reason="missing_file")
    if not (source if path is None else path.stat().st_size):
        raise SampleError("NIfTI file is empty", path=path, reason="empty_file")
    code = "" if modality is None else require_modality(modality, "", path)
    with guarded("cannot read the NIfTI file", path, "not_nifti"), _open(source if path is None else path) as file:
        head = _take(file, 540, path, at_least=348)
        header, warnings = _header(nibabel, head, path)
        shape, frames = _shape(header, path)
        check_voxels(shape, path, max_voxels)
        dtype = header.get_data_dtype()
        if dtype.names or dtype.kind not in "iuf" or dtype.itemsize > 16:
            message = "colour or complex voxels are no measurements: export one grey channel"
            raise SampleError(message, path=path, reason="bad_pixels")
        chosen = range(frames)
        if frame is not None:
            if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < frames:
                message = f"frame {frame!r:.20} is not in a NIfTI file of {frames} volumes; they count from 0"
                raise SampleError(message, path=path, reason="bad_frame")
            chosen = range(frame, frame + 1)
        check_voxels((*shape, len(chosen)), path, max_voxels)
        if outline:
            nothing = np.broadcast_to(np.float32(0), shape)
            return [turned(Volume(nothing, _affine(header, path), code), path) for _ in chosen]
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        slope, intercept = _scale(header, path)
        _seek(file, int(header.get_data_offset()) + size * chosen.start, path)
        volumes = []
        for _ in chosen:
            raw = _take(file, size, path, at_least=size)
            array = np.frombuffer(raw, dtype).reshape(shape, order="F").astype(np.float32)
            del raw
            if (slope, intercept) != (1.0, 0.0):
                array = array * np.float32(slope) + np.float32(intercept)
            found = warnings
            if not np.isfinite(array).all():
                array, found = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0), (*warnings, "NaN voxels became 0")
            volumes.append(turned(Volume(array, _affine(header, path), code, warnings=found), path))
        return volumes


def _as_stored(volume: Volume, path) -> Volume:
    ras_axes(volume.affine, path)  # whose directions can be told
    return volume


def _open(path: Path | bytes):
    if isinstance(path, bytes):
        return gzip.open(io.BytesIO(path)) if path[:2] == b"\x1f\x8b" else io.BytesIO(path)
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _take(file, count: int, path, at_least: int) -> bytes:
    """`count` bytes of a possibly compressed file; never more. Raises SampleError("bad_pixels") for too few."""
    parts, missing = [], count
    try:
        while missing and (part := file.read(min(missing, 2**24))):
            parts.append(part)
            missing -= len(part)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        message = "the compressed NIfTI file is damaged or cut off"
        raise SampleError(message, path=path, reason="bad_pixels") from None
    if count - missing < at_least:
        message = f"the NIfTI file ends after {count - missing} of {count} bytes: it is cut off"
        raise SampleError(message, path=path, reason="bad_pixels")
    return b"".join(parts)


def _seek(file, offset: int, path) -> None:
    try:
        file.seek(offset)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        message = "the compressed NIfTI file is damaged or cut off"
        raise SampleError(message, path=path, reason="bad_pixels") from None


def _header(nibabel, head: bytes, path):
    """The first bytes -> (nibabel's header of NIfTI-1 or -2, warnings)."""
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    kind = nibabel.Nifti2Header if 540 in sizes else nibabel.Nifti1Header
    magic = head[4:12] if kind is nibabel.Nifti2Header else head[344:348]
    if not sizes & {348, 540} or not magic.startswith((b"n+1", b"n+2")):
        pair = magic.startswith((b"ni1", b"ni2"))
        words = "a .hdr/.img pair: save it as one .nii file" if pair else "no NIfTI file"
        raise SampleError(f"the file is {words}", path=path, reason="not_nifti")
    header = kind.from_fileobj(io.BytesIO(head), check=False)
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr <= offset <= MAX_OFFSET:
        message = f"the voxels are said to start at byte {offset:.0f}: the header is damaged"
        raise SampleError(message, path=path, reason="not_nifti")
    warnings = []
    codes = int(header["qform_code"]), int(header["sform_code"])
    if codes == (0, 0):
        warnings.append("the NIfTI header states no orientation (qform and sform are 0): left and right are not known")
    elif min(codes) > 0 and not np.allclose(header.get_qform(), header.get_sform(), atol=0.1):
        warnings.append("qform and sform of the NIfTI header differ: the sform is used")
    return header, tuple(warnings)


def _shape(header, path) -> tuple[tuple[int, int, int], int]:
    """((X, Y, Z), volumes)."""
    shape = tuple(int(length) for length in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:  # a vector a voxel: its components are frames
        shape = (*shape[:3], shape[4])
    if not 2 <= len(shape) <= 4 or min(shape) < 1 or (len(shape) == 4 and shape[3] > MAX_FRAMES):
        words = " x ".join(map(str, shape)) or "no"
        raise SampleError(f"a NIfTI shape of {words} voxels is no volume", path=path, reason="bad_pixels")
    return (*shape[:3], 1)[:3], shape[3] if len(shape) == 4 else 1


def _scale(header, path) -> tuple[float, float]:
    """(scl_slope, scl_inter); (1, 0) where the header sets none."""
    slope, intercept = header.get_slope_inter()  # raises on a slope without an intercept
    slope, intercept = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if not (0 < abs(slope) < 1e30 and abs(intercept) < 1e30):
        raise SampleError("scl_slope or scl_inter is out of all bounds", path=path, reason="bad_pixels")
    return slope, intercept


def _affine(header, path) -> np.ndarray:
    """(4, 4) voxel indices -> mm RAS."""
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e6:
        raise SampleError("the affine of the NIfTI header is out of all bounds", path=path, reason="bad_affine")
    return affine
