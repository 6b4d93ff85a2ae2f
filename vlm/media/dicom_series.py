"""A folder of DICOM slices as a volume: files grouped by SeriesInstanceUID, ordered by geometry, in RAS orientation.

Series are called by number, in an order that depends on their headers alone: their UIDs and descriptions are the
patient's. Files that are no images (reports, masks) are counted, not hidden.
"""

import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlm.errors import SampleError
from vlm.media.deidentify import guarded, number, safe_header, text
from vlm.media.dicom_file import find_number_tuple, groups_of, is_capture, notes, num_frames, open_dicom
from vlm.media.dicom_pixels import decode_frame, rescale
from vlm.media.modality import MODALITIES
from vlm.media.mr_sequence import sequence_of
from vlm.media.slice_order import Plane, plane_name, stack_planes
from vlm.media.volume import MAX_VOXELS, Volume, check_voxels, to_ras
from vlm.media.windows import file_windows

MAX_FILES = 20_000
RANK = ("AcquisitionNumber", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "InstanceNumber")


@dataclass
class Series:
    """The files of one series.

    Attributes:
        number: From 1, as error messages and `series=` call it.
        modality, body_part, sequence: As in `Volume`.
        paths: The files, not in order.
        planes: Where each slice lies.
        is_multiframe: A file of several frames, which is a volume of its own.
        is_capture: Screenshots, which are no slices.
    """

    number: int
    modality: str
    body_part: str
    sequence: str
    paths: list[Path] = field(repr=False, default_factory=list)
    planes: list[Plane] = field(repr=False, default_factory=list)
    is_multiframe: bool = False
    is_capture: bool = False

    def words(self) -> str:
        """ "series 2: MRI (flair), 24 axial slices of 256 x 256"."""
        what = MODALITIES.get(self.modality, "no modality") + (f" ({self.sequence})" if self.sequence else "")
        if self.is_capture:
            return f"series {self.number}: {what}, {len(self.paths)} screenshots"
        if self.is_multiframe:
            return f"series {self.number}: {what}, a multi-frame file"
        first = self.planes[0]
        way = f"{plane_name(first.orientation)} " if first.orientation else ""
        return f"series {self.number}: {what}, {len(self.paths)} {way}slices of {first.size[0]} x {first.size[1]}"


def list_series(source) -> tuple[list[Series], tuple[str, ...]]:
    """The image series of a folder (searched with its subfolders) or of a list of files, and what was left out.

    Raises:
        SampleError: missing_file, too_large (more than `MAX_FILES` files), no_slices (the message says what was found).
    """
    folder, paths = _files(source)
    groups: dict[tuple, list[tuple[Path, object]]] = {}
    left_out: Counter[str] = Counter()
    for path in paths:
        try:
            data = open_dicom(path, header_only=True)
            rows = number(data, "Rows")
        except SampleError as error:
            left_out[_why(error)] += 1
            continue
        if not rows or not number(data, "Columns"):
            left_out["no images (no pixels)"] += 1
            continue
        many = (number(data, "NumberOfFrames") or 1) > 1
        key = (text(data, "SeriesInstanceUID"), is_capture(data), text(data, "SOPInstanceUID") if many else "")
        groups.setdefault(key, []).append((path, data))
    skipped = tuple(f"{count} files left out: {why}" for why, count in sorted(left_out.items()))
    if not groups:
        found = "; ".join(skipped) or "it is empty"
        raise SampleError(f"the folder holds no DICOM images: {found}", path=folder, reason="no_slices")
    members = sorted(groups.items(), key=lambda item: (_series_rank(item[1][0][1]), item[0]))
    return [_series(i + 1, key, files) for i, (key, files) in enumerate(members)], skipped


def read_series(
    source,
    series: int | None = None,
    strict: bool = True,
    pick: int | None = None,
    max_voxels: int = MAX_VOXELS,
    outline: bool = False,
) -> Volume:
    """A folder (or list of files) of one series -> a volume in RAS orientation, physical values.

    Args:
        series: Which, from 1, where the folder holds several.
        strict, pick: As in `vlm.media.slice_order.stack_planes`.
        outline: Read headers alone; the voxels are zeros that take no memory.

    Raises:
        SampleError: those of `list_series`, of `stack_planes` and of the pixels; several_series (the message lists
            them), bad_series, not_a_volume (screenshots, colour pictures), mixed_modalities, too_large.
    """
    chosen, skipped, folder = _chosen(source, series)
    if chosen.is_multiframe:
        volume = read_multiframe(chosen.paths[0], strict, pick, max_voxels, outline)
        volume.warnings += skipped
        return volume
    return to_ras(_stacked(chosen, skipped, folder, strict, pick, max_voxels, outline).volume, folder)


@dataclass(frozen=True)
class StackedSeries:
    """A series as its files hold it: `volume` not turned to RAS, its axes (column, row, slice); `paths` of its slices
    in order; `uneven` as in `vlm.media.slice_order.Stack`.
    """

    volume: Volume
    paths: tuple[Path, ...]
    uneven: float


def stack_series(source, max_voxels: int = MAX_VOXELS) -> StackedSeries:
    """As `read_series`, as the files hold it: for masks that are written back onto the slices. Raises SampleError as it
    does, and not_a_volume for a multi-frame file.
    """
    chosen, skipped, folder = _chosen(source, None)
    if chosen.is_multiframe:
        message = "a multi-frame file is no series of slices: give the folder of a series"
        raise SampleError(message, path=folder, reason="not_a_volume")
    return _stacked(chosen, skipped, folder, True, None, max_voxels)


def _chosen(source, series: int | None) -> tuple[Series, tuple[str, ...], Path | None]:
    """(the series, what was left out, the folder)."""
    found, skipped = list_series(source)
    folder = _folder(source)
    chosen = _choose(found, series, folder)
    if chosen.is_capture:
        message = "secondary captures (screenshots) are no slices: use each as an image"
        raise SampleError(message, path=folder, reason="not_a_volume")
    return chosen, skipped, folder


def _stacked(
    chosen: Series, skipped: tuple[str, ...], folder, strict: bool, pick, max_voxels: int, outline: bool = False
) -> StackedSeries:
    stack = stack_planes(chosen.planes, folder, strict, pick)
    paths = tuple(chosen.paths[index] for index in stack.order)
    rows, columns = chosen.planes[0].size
    check_voxels((columns, rows, len(stack.order)), folder, max_voxels)
    if outline:
        nothing = np.broadcast_to(np.float32(0), (columns, rows, len(stack.order)))
        volume = Volume(nothing, stack.affine, chosen.modality, chosen.body_part, chosen.sequence)
        return StackedSeries(volume, paths, stack.uneven)
    array = np.empty((columns, rows, len(stack.order)), dtype=np.float32)
    facts: dict = {}
    for place, index in enumerate(stack.order):
        what = f"slice {place + 1} (file {index + 1} of {len(chosen.paths)} by name)"
        data = open_dicom(chosen.paths[index])
        array[:, :, place] = _values(data, 0, (rows, columns), folder, what).T
        if place == len(stack.order) // 2:
            facts = _facts(data, 0)
    warnings = (*stack.warnings, *facts.pop("notes"), *skipped)
    return StackedSeries(Volume(array, stack.affine, warnings=warnings, **facts), paths, stack.uneven)


def read_multiframe(
    source, strict: bool = True, pick: int | None = None, max_voxels: int = MAX_VOXELS, outline: bool = False
) -> Volume:
    """A multi-frame object (enhanced CT, MR, PET; path or bytes) or a single slice -> a volume in RAS orientation.

    Raises SampleError as `read_series`; no_geometry where the frames do not say where they lie (ultrasound,
    angiography: frames in time).
    """
    path = None if isinstance(source, bytes) else source
    data = open_dicom(io.BytesIO(source) if path is None else path, header_only=outline)
    with guarded("cannot interpret the DICOM file", path, "bad_pixels"):
        if is_capture(data):
            message = "a secondary capture (screenshot) is no volume: use it as an image"
            raise SampleError(message, path=path, reason="not_a_volume")
        count = num_frames(data, path)
        planes = [plane_of(data, frame) for frame in range(count)]
        if count > 1 and not any(plane.position for plane in planes):
            message = (
                f"the {count} frames do not say where they lie (frames in time, or no functional groups): no volume; "
                "use one frame as an image"
            )
            raise SampleError(message, path=path, reason="no_geometry")
        stack = stack_planes(planes, path, strict, pick)
        rows, columns = planes[0].size
        check_voxels((columns, rows, len(stack.order)), path, max_voxels)
        if outline:
            facts = {key: value for key, value in _facts(data, 0).items() if key != "notes"}
            nothing = np.broadcast_to(np.float32(0), (columns, rows, len(stack.order)))
            return to_ras(Volume(nothing, stack.affine, **facts), path)
        array = np.empty((columns, rows, len(stack.order)), dtype=np.float32)
        for place, frame in enumerate(stack.order):
            array[:, :, place] = _values(data, frame, (rows, columns), path, f"frame {frame + 1}").T
        facts = _facts(data, stack.order[len(stack.order) // 2])
        return to_ras(Volume(array, stack.affine, warnings=(*stack.warnings, *facts.pop("notes")), **facts), path)


def plane_of(data, frame: int = 0) -> Plane:
    """Where a frame lies, from its functional groups or the plain header."""
    places = groups_of(data, frame)

    measures = "PixelMeasuresSequence"
    thickness = find_number_tuple(places, measures, "SpacingBetweenSlices", 1)
    thickness = thickness or find_number_tuple(places, measures, "SliceThickness", 1)
    many = len(places) > 1
    return Plane(
        position=find_number_tuple(places, "PlanePositionSequence", "ImagePositionPatient", 3),
        orientation=find_number_tuple(places, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
        spacing=find_number_tuple(places, measures, "PixelSpacing", 2),
        size=(int(number(data, "Rows") or 0), int(number(data, "Columns") or 0)),
        uid="" if many else text(data, "SOPInstanceUID"),
        rank=(frame,) if many else tuple(number(data, key) or 0.0 for key in RANK),
        thickness=abs(thickness[0]) if thickness and thickness[0] else None,
    )


def _files(source) -> tuple[Path | None, list[Path]]:
    """(the folder, its files), or (None, the files given)."""
    if isinstance(source, (list, tuple)):
        return None, [Path(os.path.expanduser(path)) for path in source]
    folder = Path(os.path.expanduser(source))
    if not folder.is_dir():
        raise SampleError("DICOM folder does not exist", path=folder, reason="missing_file")
    paths = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(root) / name for name in sorted(names) if not name.startswith(".")]
        if len(paths) > MAX_FILES:
            raise SampleError(f"the folder holds more than {MAX_FILES} files", path=folder, reason="too_large")
    return folder, [path for path in paths if path.name.upper() != "DICOMDIR"]


def _folder(source) -> Path | None:
    return None if isinstance(source, (list, tuple)) else Path(os.path.expanduser(source))


def _why(error: SampleError) -> str:
    """Why a file of a folder is left out, without its name."""
    if error.reason == "not_an_image":
        return error.message.removeprefix("the DICOM file is ").removesuffix(", not an image")
    return {"not_dicom": "no DICOM files", "empty_file": "empty files"}.get(error.reason, "not readable")


def _series_rank(data) -> tuple:
    return (number(data, "SeriesNumber") or 0.0, text(data, "SeriesInstanceUID"))


def _series(place: int, key: tuple, files: list) -> Series:
    header = safe_header(files[0][1])
    return Series(
        place,
        header.get("Modality", ""),
        header.get("BodyPartExamined", ""),
        sequence_of(files[0][1]),
        [path for path, _ in files],
        [plane_of(data) for _, data in files],
        is_multiframe=bool(key[2]),
        is_capture=key[1],
    )


def _choose(found: list[Series], series: int | None, folder) -> Series:
    if series is None and len(found) == 1:
        return found[0]
    if series is None:
        volumes = [one for one in found if not one.is_capture]
        if len(volumes) == 1:
            return volumes[0]
        listed = "; ".join(one.words() for one in found[:20])
        message = f"the folder holds {len(found)} series: {listed}; choose one with series=N"
        raise SampleError(message, path=folder, reason="several_series")
    if isinstance(series, bool) or not isinstance(series, int) or not 1 <= series <= len(found):
        message = f"series {series!r:.20} is not in a folder of {len(found)} series; they count from 1"
        raise SampleError(message, path=folder, reason="bad_series")
    return found[series - 1]


def _values(data, frame: int, size: tuple[int, int], path, what: str) -> np.ndarray:
    """(H, W) float32 physical values of a frame."""
    with guarded(f"cannot read {what}", path, "bad_pixels"):
        try:
            pixels = decode_frame(data, frame, path)
        except SampleError as error:
            raise SampleError(f"{what}: {error.message}", path=path, reason=error.reason) from None
        if pixels.ndim != 2 or pixels.shape != size:
            message = f"{what} is a colour picture or of another size than the header says: no volume"
            raise SampleError(message, path=path, reason="not_a_volume")
        return rescale(data, pixels, groups_of(data, frame), path)[0]


def _facts(data, frame: int) -> dict:
    """What a volume keeps of the header."""
    header = safe_header(data)
    windows = file_windows(groups_of(data, frame))
    return {
        "modality": header.get("Modality", ""),
        "body_part": header.get("BodyPartExamined", ""),
        "sequence": sequence_of(data),
        "window": windows[0] if windows else None,
        "is_inverted": header.get("PhotometricInterpretation") == "MONOCHROME1",
        "notes": notes(data),
    }
