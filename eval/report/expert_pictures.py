"""The slice that a conversation was about, and the same slice with the regions that the expert marked, label by label.

Results files hold no masks. Experts that need no weights are run again on the file, which takes milliseconds; a network
never is, so of its regions there is no picture here, and the card says so.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from eval.report.pictures import still

if TYPE_CHECKING:
    from vlm.experts import ExpertResult

logger = logging.getLogger(__name__)

SIDE = 384
"""Pixels of the longer side that small slices are enlarged to, so that an outline is a line and not a wall."""


@dataclass
class Marked:
    """Pictures of one file; `marked` is None where there is no mask, and then `note` says why, if there is a reason."""

    plain: Image.Image
    marked: Image.Image | None = None
    legend: list[tuple[str, str]] = field(default_factory=list)
    """(CSS colour, name) of each label that is on the slice."""
    place: str = ""
    """`slice 12 of 40` of a volume."""
    note: str = ""


def marked_file(path: str, call: Mapping[str, Any] | None) -> Marked:
    """A file with what a call's expert marks in it. Raises what reading the file raises."""
    from vlm.experts import ExpertError

    if call is None or not call.get("ok"):
        return _plain(path)
    try:
        result, note = _run_again(call, path)
        if result is None or result.mask is None or not np.asarray(result.mask).any():
            return _plain(path, note)
        return _drawn(Path(path), result, note)
    except (ExpertError, ImportError) as error:
        logger.warning("no regions: %s", type(error).__name__)  # its words may name a file
        return _plain(path, "its regions cannot be drawn here")


def _run_again(call: Mapping[str, Any], path: str) -> tuple[ExpertResult | None, str]:
    """The expert's result on a file, and a note for the reader. Only where the expert is a rule without weights."""
    from vlm.experts import ExpertError, get_expert
    from vlm.experts.feedback import checked
    from vlm.experts.image_facts import image_facts

    name = str(call.get("name") or "")
    try:
        expert = get_expert(name)
    except ExpertError:
        return None, f"{name} is not installed here: no regions are drawn"
    if expert.card.weights != "none":
        return None, f"{name} is a network and is not run again for a page: no regions are drawn"
    result = checked(expert().run(Path(path), tuple(call.get("arguments") or ())), name, image_facts(path))
    if result.mask is None:
        return result, f"{name} answers in words and marks no regions"
    if not result.mask.any():
        return result, f"{name} marked no region"
    return result, ""


def _drawn(path: Path, result: ExpertResult, note: str) -> Marked:
    from vlm.experts.colours import colour_name
    from vlm.experts.feedback import picture_of
    from vlm.experts.overlay import draw_overlay, fullest_slice, label_names

    image, flat = picture_of(path, result.mask)
    names = result.findings.get("labels") if isinstance(result.findings, dict) else None
    everywhere, here = (label_names(mask, names if isinstance(names, dict) else None) for mask in (result.mask, flat))
    if hidden := len(everywhere) - len(here):
        note = ". ".join(filter(None, [note, f"{hidden} more on other slices"]))
    volume = result.mask.ndim == 3 and len(result.mask) > 1
    place = f"slice {fullest_slice(result.mask) + 1} of {len(result.mask)}" if volume else ""
    times = _times(image)
    legend = [(colour_name(name), name) for name in here.values()]
    drawn = draw_overlay(_enlarged(image, times), flat.repeat(times, 0).repeat(times, 1), here)
    return Marked(_enlarged(image, times), drawn, legend, place, note)


def _plain(path: str, note: str = "") -> Marked:
    """The file alone; of a volume that is no picture the middle slice."""
    from vlm.experts.volumes import is_nifti

    if Path(path).is_dir() or is_nifti(Path(path)):
        from vlm.experts.feedback import volume_slice
        from vlm.experts.volumes import read_volume

        shape = read_volume(Path(path)).array.shape
        image, _ = volume_slice(Path(path), np.zeros(shape, np.uint8))
        return Marked(_enlarged(image, _times(image)), place=f"slice {shape[0] // 2 + 1} of {shape[0]}", note=note)
    image = still(path)
    return Marked(_enlarged(image, _times(image)), note=note)


def _times(image: Image.Image) -> int:
    return max(1, math.ceil(SIDE / max(image.size)))


def _enlarged(image: Image.Image, times: int) -> Image.Image:
    size = (image.width * times, image.height * times)
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC) if times > 1 else image.convert("RGB")
