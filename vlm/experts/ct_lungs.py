"""Lungs and lung nodules in a CT slice, by thresholds and shapes (scipy): the part of expert `LESIONS` in the chest.

Lungs are large regions of lung density that the body encloses on all sides; nodules are denser islands inside them,
round and not so large as to be the heart. A vessel cut across looks like a small nodule on one slice: hence the
smallest size.
"""

from typing import Any

import numpy as np

LUNG_HU = (-990, -400)
MIN_LUNG_MM2 = 1500.0
NODULE_MM = (6.0, 40.0)
MIN_ROUNDNESS = 0.65


def lung_mask(hu: np.ndarray, body: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Lungs (H, W) bool of a slice: air-filled regions inside the filled outline of `body`, nodules included.

    Gas in the bowel and the windpipe are too small, air outside the body is outside its outline.
    """
    from scipy import ndimage

    inside = ndimage.binary_erosion(ndimage.binary_fill_holes(body), iterations=2)
    air = ndimage.binary_opening((hu > LUNG_HU[0]) & (hu < LUNG_HU[1]) & inside)
    labels, count = ndimage.label(air)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * spacing[0] * spacing[1]
    sizes[0] = 0
    return ndimage.binary_fill_holes(np.isin(labels, np.flatnonzero(sizes >= MIN_LUNG_MM2)))


def nodules(hu: np.ndarray, lungs: np.ndarray, spacing: tuple[float, float]) -> list[dict[str, Any]]:
    """Round dense islands in the lungs, in the order they are found.

    Each has `mm` (diameter of the disc of equal area), `row`, `column`, `hu`, and its pixels: `region` (h, w) bool
    within the slices `box`.
    """
    from scipy import ndimage

    if not lungs.any():
        return []
    # Half way between lung and soft tissue, so that partly covered pixels count about right.
    level = (float(np.median(hu[lungs])) + 30) / 2
    labels, _ = ndimage.label((hu > level) & lungs)
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[box] == label
        mm = 2 * float(np.sqrt(region.sum() * spacing[0] * spacing[1] / np.pi))
        sides = region.shape[0] * spacing[0], region.shape[1] * spacing[1]
        round_ = region.sum() * spacing[0] * spacing[1] >= MIN_ROUNDNESS * np.pi / 4 * max(sides) ** 2
        if not (NODULE_MM[0] <= mm <= NODULE_MM[1] and round_):
            continue
        row, column = ndimage.center_of_mass(region)
        found.append({
            "mm": mm, "hu": float(np.median(hu[box][region])), "row": row + box[0].start,
            "column": column + box[1].start, "box": box, "region": region,
        })  # fmt: skip
    return found
