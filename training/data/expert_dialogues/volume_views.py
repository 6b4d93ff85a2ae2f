"""What of a volume is shown in a conversation: its slices, or a few of each sequence where a folder holds several.

An MRI examination is often a folder with one file or series a sequence (`x_t1ce.nii.gz`, ...), which is what the expert
BRATS reads. All of them are shown, each behind its name, with as many slices together as a single volume has.
"""

from pathlib import Path
from typing import Any

from training.data.expert_dialogues.labelled_set import LabelledImage
from training.data.expert_dialogues.plain_headers import sequence_word
from vlm.errors import SampleError
from vlm.media.dicom_series import list_series
from vlm.media.nifti import is_nifti
from vlm.prompt_volumes import expand_volumes

SLICES = 8


def volume_views(image: LabelledImage) -> list[dict[str, Any]]:
    """Text and image items, with pictures in memory. Raises SampleError."""
    stated = {"modality": image.modality} if image.modality else {}
    volumes = named_volumes(image.path)
    items: list[dict[str, Any]] = []
    for word, options in volumes:
        volume = {"type": "volume", **options, **stated, "slices": max(1, SLICES // len(volumes))}
        shown = expand_volumes([{"role": "user", "content": [volume]}])[0]["content"]
        items += [{"type": "text", "text": f"{word}: "}, *shown] if word and len(volumes) > 1 else shown
    return items


def named_volumes(path: Path) -> list[tuple[str | None, dict[str, Any]]]:
    """(sequence or None, keys of a volume item) of every volume that a file or folder holds, at most `SLICES`."""
    if not path.is_dir():
        return [(None, {"volume": str(path)})]
    if files := [file for file in sorted(path.iterdir()) if is_nifti(file)]:
        return [(sequence_word(file), {"volume": str(file)}) for file in files][:SLICES]
    series = [one for one in list_series(path)[0] if not one.is_capture]
    if len(series) < 2:
        return [(None, {"volume": str(path)})]
    if len(series) > SLICES:
        message = f"a folder of {len(series)} series is more than one examination to be asked about; give one of them"
        raise SampleError(message, path=path, reason="many_series")
    return [(one.sequence or None, {"volume": str(path), "series": one.number}) for one in series]
