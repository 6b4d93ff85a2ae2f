"""Expert `LESIONS`: finds round lesions in a CT slice by segmenting its pixels, no network and no weights.

Body = largest region above -300 HU; candidates = soft-tissue regions clearly brighter than their surroundings that
touch neither bone nor the body's rim, and nodules in the lungs (`ct_lungs.py`); the diameter comes from the area,
partly covered pixels counted by brightness. Made for the synthetic slices; it shows the protocol on real pixel work
and is no medical device. What it does not understand it refuses: a slice with much bright tissue that is no lesion
(contrast medium in vessels and organs, calcium, artefacts) or with more lesions than a slice plausibly has. On the
contrast-enhanced slices of public test files it would otherwise report up to 81.
"""

from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import SampleError
from vlm.experts.ct_lungs import lung_mask, nodules
from vlm.experts.protocol import Expert, ExpertCard, ExpertError, ExpertResult, register_expert
from vlm.experts.topics import Topic
from vlm.media.deidentify import safe_header
from vlm.media.dicom_file import groups_of, num_frames, open_dicom
from vlm.media.dicom_pixels import decode_frame, rescale
from vlm.media.dicom_series import plane_of

CARD = ExpertCard(name="LESIONS", modality="CT", body_part="any", returns="lesions")
BODY_HU, BONE_HU, LESION_HU = -300, 300, 100
MIN_PIXELS, MAX_PIXELS_SIDE = 3, 2048
MIN_ROUNDNESS = 0.5
MIN_MM = 5.0  # below, the pixels of a slice tell no shape
MAX_LESIONS = 10
MAX_UNEXPLAINED_CM2 = 1.0


def findings_text(number: int, largest: tuple[str, int] | None) -> str:
    """The result in words: `2 lesions; largest: left, 14 mm`, or `0 lesions`."""
    noun = "lesion" if number == 1 else "lesions"
    return f"{number} {noun}; largest: {largest[0]}, {largest[1]} mm" if largest else f"{number} {noun}"


TOPICS = (
    Topic(
        "number",
        ("How many lesions are there?", "How many lesions does the image show?", "Count the lesions."),
        lambda result: str(len(result.findings["lesions"])),
    ),
    Topic(
        "side",
        ("On which side is the largest lesion?", "Is the largest lesion on the left or on the right?"),
        lambda result: next((lesion["side"] for lesion in result.findings["lesions"]), None),
    ),
    Topic(
        "size",
        ("How large is the largest lesion, in mm?", "What is the diameter of the largest lesion, in mm?"),
        lambda result: next((str(round(lesion["mm"])) for lesion in result.findings["lesions"]), None),
        tolerance=1,
    ),
)


@register_expert
class CTLesions(Expert):
    """Counts lesions, measures the largest, names its side. The mask numbers lesions from the largest (1) down.

    Findings: `lesions` (`mm`, `side`, `place` soft tissue or lung, ...), `lungs` (area of each side in square cm, empty
    without lungs), `labels` (names of the mask's labels).
    """

    card = CARD
    topics = TOPICS

    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        hu, spacing, left_is_high = read_slice(path)
        mask, lesions, bright = _segment(hu, spacing)
        check_plausible(bright & (mask == 0), spacing, len(lesions))
        for lesion in lesions:
            lesion["side"] = "left" if (lesion["column"] > lesion["middle"]) == left_is_high else "right"
        largest = (lesions[0]["side"], round(lesions[0]["mm"])) if lesions else None
        findings = {
            "lesions": lesions,
            "lungs": lung_areas(hu, spacing, left_is_high),
            "labels": {number: f"lesion {number}" for number in range(1, len(lesions) + 1)},
        }
        return ExpertResult(findings_text(len(lesions), largest), mask, findings)


def read_slice(path: Path) -> tuple[np.ndarray, tuple[float, float], bool]:
    """HU (H, W) float32, pixel spacing (row, column) in mm, and whether columns run to the patient's left.

    Raises `ExpertError` where the file is no single CT slice or its header is silent on spacing or orientation.
    """
    if path.is_dir():
        raise ExpertError("needs one slice, this is a whole series")
    try:
        data = open_dicom(path)
        modality = safe_header(data).get("Modality", "")
        if modality != "CT":
            raise ExpertError(f"image is {modality or 'of no stated modality'}, not CT")
        plane = plane_of(data)
        if num_frames(data) > 1 or max(plane.size) > MAX_PIXELS_SIDE:
            raise ExpertError("needs one slice of at most 2048 x 2048 pixels")
        if plane.spacing is None or plane.orientation is None:
            raise ExpertError("the header gives no spacing or orientation")
        if abs(plane.orientation[0]) < 0.7:
            raise ExpertError("the slice is not axial or coronal: it has no left and right")
        pixels = decode_frame(data, 0, path)
        if pixels.ndim != 2:
            raise ExpertError("a colour picture holds no Hounsfield units")
        hu, _, _ = rescale(data, pixels, groups_of(data, 0), path)
    except SampleError as error:  # whose words are our own, never a header's
        raise ExpertError(f"cannot read the image: {error.message}") from None
    return hu, plane.spacing, plane.orientation[0] > 0


def lung_areas(hu: np.ndarray, spacing: tuple[float, float], left_is_high: bool) -> dict[str, float]:
    """Area of the lungs on each side of the body's middle, in square cm; empty when the slice shows none."""
    body = body_mask(hu)
    lungs = lung_mask(hu, body, spacing)
    if not lungs.any():
        return {}
    high = np.arange(hu.shape[1]) > float(np.nonzero(body)[1].mean())
    pixel = spacing[0] * spacing[1] / 100
    on_high, on_low = float(lungs[:, high].sum()) * pixel, float(lungs[:, ~high].sum()) * pixel
    return {"left": on_high, "right": on_low} if left_is_high else {"left": on_low, "right": on_high}


def body_mask(hu: np.ndarray) -> np.ndarray:
    """The largest region denser than air (H, W) bool; all False when there is none."""
    from scipy import ndimage

    regions, count = ndimage.label(hu > BODY_HU)
    if count == 0:
        return np.zeros(hu.shape, bool)
    return regions == 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))


def check_plausible(unexplained: np.ndarray, spacing: tuple[float, float], number: int) -> None:
    """Raises `ExpertError` for a slice that the rule of `segment` does not fit: counting there would be guessing.

    unexplained: (H, W) bool, bright tissue that is no lesion. number: of lesions found.
    """
    left = float(unexplained.sum()) * spacing[0] * spacing[1] / 100
    if left > MAX_UNEXPLAINED_CM2:
        raise ExpertError(
            f"{left:.0f} square cm of bright tissue are no round lesions (contrast medium, calcium, artefacts?): "
            "lesions cannot be told from them here"
        )
    if number > MAX_LESIONS:
        raise ExpertError(f"{number} bright regions in one slice are no plausible number of lesions")


def bright_tissue(hu: np.ndarray, body: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Soft tissue (H, W) bool above `LESION_HU`, away from bone, the body's rim and the lungs.

    Bone, two pixels around it (its partly covered rim looks like a lesion), and the outermost pixels are out.
    """
    from scipy import ndimage

    bone = ndimage.binary_dilation(hu > BONE_HU, iterations=2)
    inside = ndimage.binary_erosion(ndimage.binary_fill_holes(body), iterations=3) & ~bone
    return (hu > LESION_HU) & inside & ~lungs


def segment(hu: np.ndarray, spacing: tuple[float, float]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Lesions in a slice `hu` (H, W): a mask (H, W) uint16 (1 = largest) and per lesion its measures, largest first.

    Each lesion has `mm` (diameter of the disc of equal area), `row`, `column` (centroid), `middle` (the body's middle
    column), `hu` (brightness) and `place` (soft tissue or lung).
    """
    mask, found, _ = _segment(hu, spacing)
    return mask, found


def _segment(hu: np.ndarray, spacing: tuple[float, float]) -> tuple[np.ndarray, list[dict[str, Any]], np.ndarray]:
    """As `segment`, and the bright tissue (H, W) bool in which lesions were looked for."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("the expert LESIONS needs scipy: pip install 'radio-vlm[medical]'") from error
    body, mask = body_mask(hu), np.zeros(hu.shape, np.uint16)
    if not body.any():
        return mask, [], body
    middle = float(np.nonzero(body)[1].mean())
    lungs = lung_mask(hu, body, spacing)
    found = [nodule | {"middle": middle, "place": "lung"} for nodule in nodules(hu, lungs, spacing)]
    bright = bright_tissue(hu, body, lungs)
    labels, _ = ndimage.label(bright)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        window = tuple(slice(max(0, s.start - 4), s.stop + 4) for s in box)
        region = labels[window] == label
        if region.sum() < MIN_PIXELS:
            continue
        measured = _measure(ndimage, hu[window], region, (labels[window] > 0) & ~region, spacing)
        if measured is None or measured["mm"] < MIN_MM:
            continue
        row, column = ndimage.center_of_mass(region)
        measured |= {"row": row + window[0].start, "column": column + window[1].start, "middle": middle}
        found.append(measured | {"place": "soft tissue", "box": window, "region": region})
    found.sort(key=lambda lesion: -lesion["mm"])
    for number, lesion in enumerate(found, start=1):
        mask[lesion.pop("box")][lesion.pop("region")] = number
    return mask, found, bright


def _measure(
    ndimage: Any, hu: np.ndarray, region: np.ndarray, others: np.ndarray, spacing: tuple[float, float]
) -> dict[str, Any] | None:
    """Diameter and brightness of one region within its window (h, w); None when it is not round like a lesion."""
    near = ndimage.binary_dilation(region, iterations=1)
    ring = ndimage.binary_dilation(region, iterations=3) & ~ndimage.binary_dilation(region, iterations=2)
    ring &= ~ndimage.binary_dilation(others, iterations=2)
    if not ring.any():
        return None
    background = float(np.median(hu[ring]))
    core = ndimage.binary_erosion(region)
    # Small regions have no core of fully covered pixels to speak of: their brightest pixels stand for it.
    values = hu[core] if core.sum() >= 5 else np.sort(hu[region])[-max(2, int(region.sum()) // 3) :]
    peak = float(np.median(values))
    cover = np.clip((hu - background) / max(peak - background, 1.0), 0, 1)
    pixels = float(cover[near & ~others].sum())
    rows, columns = np.nonzero(region)
    extent = max(np.ptp(rows) + 1, np.ptp(columns) + 1)
    if region.sum() < MIN_ROUNDNESS * np.pi / 4 * extent**2:
        return None
    # Anti-aliased drawing and sampling both spread the outline: a disc of radius r covers pi (r^2 + 1/12) pixels.
    radius = np.sqrt(max(pixels / np.pi - 1 / 12, 0.1))
    return {"mm": float(2 * radius * np.sqrt(spacing[0] * spacing[1])), "hu": peak}
