"""One door for volumes: a folder of slices, a multi-frame DICOM object or a NIfTI file; and MRI sequences as channels.

Channels must differ and lie on one grid: written as one file four times, or of several patients, they are refused.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from vlm.errors import SampleError
from vlm.media.dicom_series import list_series, read_multiframe, read_series
from vlm.media.modality import require_modality
from vlm.media.mr_sequence import channel_name
from vlm.media.nifti import is_nifti, read_nifti, read_nifti_frames
from vlm.media.volume import MAX_VOXELS, Volume, same_grid


def read_volume(
    path,
    modality: str | None = None,
    series: int | None = None,
    frame: int | None = None,
    strict: bool = True,
    pick: int | None = None,
    max_voxels: int = MAX_VOXELS,
) -> Volume:
    """Any volume -> `Volume` in RAS orientation, of a known modality.

    Args:
        path: A folder of one or more DICOM series, a DICOM or NIfTI file, or the bytes of a file.
        modality: Needed for NIfTI and for DICOM whose header is silent; a contradiction to the header is refused.
        series: Of a folder with several series: which, from 1. frame: of a 4D NIfTI: which, from 0.
        strict, pick: As in `vlm.media.slice_order.stack_planes`.

    Raises:
        SampleError: those of `read_series`, `read_multiframe`, `read_nifti` and `require_modality`; bad_series and
            bad_frame where the file has no such choice.
    """
    volume = read_unnamed(path, series, frame, strict, pick, max_voxels)
    return replace(volume, modality=require_modality(modality, volume.modality, name_of(path)))


def read_unnamed(
    path,
    series: int | None = None,
    frame: int | None = None,
    strict: bool = True,
    pick: int | None = None,
    max_voxels: int = MAX_VOXELS,
    outline: bool = False,
) -> Volume:
    """As `read_volume`; `Volume.modality` is "" where the file is silent. For looking and counting, not for prompts.

    Args:
        outline: Read headers alone; the voxels are zeros that take no memory.
    """
    name = name_of(path)
    is_folder = name is not None and name.is_dir()
    nifti = path[128:132] != b"DICM" if name is None else is_nifti(name) and not is_folder
    if series is not None and not is_folder:
        raise SampleError("series chooses in a folder; this is a file", path=name, reason="bad_series")
    if frame is not None and not nifti:
        raise SampleError("frame chooses in a 4D NIfTI file; this is none", path=name, reason="bad_frame")
    source = path if name is None else name
    if is_folder:
        return read_series(source, series, strict, pick, max_voxels, outline)
    if nifti:
        return read_nifti(source, None, frame, max_voxels, outline)
    return read_multiframe(source, strict, pick, max_voxels, outline)


def name_of(source) -> Path | None:
    """The path of a source; None for bytes and for several files."""
    return None if isinstance(source, (bytes, Mapping)) else Path(os.path.expanduser(source))


def read_channels(
    source, names: Sequence[str] = ("t1ce", "t1", "t2", "flair"), strict: bool = True
) -> dict[str, Volume]:
    """MRI sequences as named channels, in the order of `names`.

    Args:
        source: {name: path} of one volume each; or a folder of DICOM series whose headers name their sequences; or a 4D
            NIfTI file, whose frames are then `names` in this order.

    Raises:
        SampleError: missing_channel and double_channel (the message lists what each series is), mixed_grids (shapes or
            affines differ), same_channel (two hold the same voxels), and those of the readers.
    """
    wanted = [channel_name(name) for name in names]
    if isinstance(source, Mapping):
        given = {channel_name(name): path for name, path in source.items()}
        _check_names(wanted, list(given), None)
        found = {name: read_volume(given[name], "MR", strict=strict) for name in wanted}
    elif is_nifti(source) and not Path(os.path.expanduser(source)).is_dir():
        found = read_nifti_frames(source, tuple(wanted), "MR")
    else:
        found = _from_folder(source, wanted, strict)
    path = None if isinstance(source, Mapping) else source
    check_channels(found, path)
    return {name: replace(volume, sequence=name, modality=volume.modality or "MR") for name, volume in found.items()}


def check_channels(channels: Mapping[str, Volume], path=None) -> None:
    """Raises SampleError for channels that lie on different grids or hold the same voxels."""
    for (one, first), (other, second) in combinations(channels.items(), 2):
        if not same_grid(first, second):
            shapes = " x ".join(map(str, first.array.shape)), " x ".join(map(str, second.array.shape))
            why = (
                f"{shapes[0]} and {shapes[1]} voxels"
                if shapes[0] != shapes[1]
                else "same shape, other place or spacing"
            )
            message = f"channels {one} and {other} lie on different grids ({why}): register and resample them first"
            raise SampleError(message, path=path, reason="mixed_grids")
        if np.array_equal(first.array, second.array):
            message = f"channels {one} and {other} hold the same voxels: one volume was given twice"
            raise SampleError(message, path=path, reason="same_channel")


def stack_channels(channels: Mapping[str, Volume], names: Sequence[str]) -> np.ndarray:
    """Channels -> (C, X, Y, Z) float32 in the order of `names`. Raises SampleError("missing_channel")."""
    _check_names([channel_name(name) for name in names], list(channels), None)
    return np.stack([channels[channel_name(name)].array for name in names])


def _check_names(wanted: list[str], given: list[str], path) -> None:
    if missing := [name for name in wanted if name not in given]:
        message = f"missing channels: {', '.join(missing)}; given are {', '.join(given) or 'none'}"
        raise SampleError(message, path=path, reason="missing_channel")


def _from_folder(folder, wanted: list[str], strict: bool) -> dict[str, Volume]:
    """Each wanted sequence from the series whose header names it."""
    series, _ = list_series(folder)
    listed = "; ".join(one.words() for one in series[:20])
    advice = f"the folder holds {listed}. Give the volumes as {{'t1': PATH, ...}} where headers do not name them"
    chosen = {}
    for name in wanted:
        fitting = [one for one in series if one.sequence == name]
        if len(fitting) != 1:
            what = "no series" if not fitting else f"{len(fitting)} series"
            reason = "double_channel" if fitting else "missing_channel"
            raise SampleError(f"{what} for channel {name}: {advice}", path=folder, reason=reason)
        chosen[name] = fitting[0].number
    return {name: read_series(folder, number, strict) for name, number in chosen.items()}
