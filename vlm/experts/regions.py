"""What a mask says in words and numbers: volume, parts and side of each region, in one fixed form for all experts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlm.experts.volumes import Volume

MIN_PART_ML = 0.05  # specks below this are volume, but no part of their own
ONE_SIDE = 0.8  # share of a region's voxels that must lie on a side for the region to be of that side
MAX_LISTED = 8


def midline(volume: Volume, body: np.ndarray) -> float:
    """Where the body's middle lies from left to right, in mm of the volume's RAS axes; `body` (D, H, W) bool."""
    step = max(1, round((body.size / 1e6) ** (1 / 3)))  # a middle needs no more than a million voxels
    indices = np.argwhere(body[::step, ::step, ::step]) * step
    return float(np.median(_right(volume, indices))) if len(indices) else 0.0


def measure(region: np.ndarray, volume: Volume, middle: float) -> dict[str, Any] | None:
    """`ml`, `parts` (connected, diagonally too) and `side` of a region (D, H, W) bool; None when it is empty."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("measuring masks needs scipy: pip install 'radio-vlm[medical]'") from error
    where = np.argwhere(region)
    if len(where) == 0:
        return None
    box = tuple(slice(low, high + 1) for low, high in zip(where.min(0), where.max(0)))
    labels, _ = ndimage.label(region[box], structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * volume.voxel_ml
    share = float((_right(volume, where) > middle).mean())
    side = "right" if share >= ONE_SIDE else "left" if share <= 1 - ONE_SIDE else "both sides"
    parts = max(1, int((sizes >= MIN_PART_ML).sum()))
    return {"ml": round(len(where) * volume.voxel_ml, 2), "parts": parts, "side": side}


def measure_labels(mask: np.ndarray, names: Mapping[int, str], volume: Volume, middle: float) -> list[dict[str, Any]]:
    """`measure` of every label that the mask (D, H, W) contains, with its `label` and `name`, largest first."""
    found = []
    for label in np.unique(mask):
        if label == 0:
            continue
        measured = measure(mask == label, volume, middle)
        found.append({"label": int(label), "name": names[int(label)], **measured})
    return sorted(found, key=lambda region: -region["ml"])


def regions_text(regions: list[dict[str, Any]]) -> str:
    """`liver: 1402.3 ml, 1 part, right; hepatic tumor: 12.1 ml, 2 parts, right`, at most eight; or `nothing found`."""
    if not regions:
        return "nothing found"
    said = [
        f"{one['name']}: {one['ml']:.1f} ml, {one['parts']} {'part' if one['parts'] == 1 else 'parts'}, {one['side']}"
        for one in regions[:MAX_LISTED]
    ]
    rest = len(regions) - MAX_LISTED
    return "; ".join([*said, *([f"and {rest} more"] if rest > 0 else [])])


def _right(volume: Volume, indices: np.ndarray) -> np.ndarray:
    """How far right (mm, RAS) voxels given as (d, h, w) rows lie."""
    row = volume.affine[0]
    return indices[:, ::-1] @ row[:3] + row[3]
