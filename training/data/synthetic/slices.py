"""Synthetic CT-like slices in Hounsfield units, and their writing as real DICOM files with pydicom.

A phantom: body outline with a rim of fat, a spine, two kidneys, sometimes the patient table, and zero to three round
lesions brighter than the tissue around them. Sizes are in millimetres through the file's own pixel spacing; sides are
the patient's (the file says that columns run to the patient's left, so the left half of the picture is the right side).
"""

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from training.data.synthetic.phantom import phantom_dataset

WINDOWS = {"soft": (40, 400), "lung": (-600, 1500), "bone": (400, 1800)}
SPACINGS = (2.5, 2.75, 3.0)
SIZES = range(12, 41)  # diameters of the largest lesion, mm
SMALLEST = 8
TISSUE, FAT, KIDNEY, AIR, TABLE = 40, -100, 70, -1000, 150


@dataclass(frozen=True)
class Lesion:
    """A round lesion: centre in pixels, diameter in mm, brightness in HU."""

    x: float
    y: float
    mm: int
    hu: int

    def side(self, size: int) -> str:
        """The patient's side it lies on."""
        return "right" if self.x < size / 2 else "left"


@dataclass(frozen=True)
class Slice:
    """Everything a slice shows; `lesions` sorted from the largest down."""

    size: int
    spacing: float
    half_axes: tuple[int, int]
    window: str
    table: bool
    lesions: tuple[Lesion, ...]

    def content(self) -> tuple:
        """What two slices must share to count as the same content (places to 4 pixels; noise does not count)."""
        lesions = tuple((int(item.x) // 4, int(item.y) // 4, item.mm) for item in self.lesions)
        return (self.half_axes, self.spacing, self.window, self.table, lesions)


def cover(size: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """How much of each pixel (H, W) an ellipse covers, 0 … 1."""
    axis = np.arange(size, dtype=np.float32)
    dx, dy = (axis - x)[None, :], (axis - y)[:, None]
    radius = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2) + 1e-6
    # Distance to the outline, exact for circles; along the ray through the centre for ellipses.
    distance = np.sqrt(dx * dx + dy * dy) * (1 - 1 / radius) if rx != ry else np.sqrt(dx * dx + dy * dy) - rx
    return np.clip(0.5 - distance, 0, 1)


def paint(hu: np.ndarray, cover: np.ndarray, value: float) -> None:
    hu += cover * (value - hu)


@lru_cache(maxsize=256)
def _anatomy(size: int, half_axes: tuple[int, int], table: bool) -> np.ndarray:
    """The slice without lesions and noise, HU (H, W) float32; shared, so never write to it."""
    hu = np.full((size, size), AIR, np.float32)
    centre, (rx, ry) = size / 2, half_axes
    y = size * 0.47
    paint(hu, cover(size, centre, y, rx, ry), FAT)
    paint(hu, cover(size, centre, y, rx - 3, ry - 3), TISSUE)
    for sign in (-1, 1):
        paint(hu, cover(size, centre + sign * rx * 0.42, y + ry * 0.5, 4.5, 3.5), KIDNEY)
    paint(hu, cover(size, centre, y + ry * 0.6, 6, 5), 700)
    if table:
        rows = slice(int(size * 0.91), int(size * 0.91) + 3)
        hu[rows, size // 8 : size - size // 8] = TABLE
    return hu


def random_slice(rng: random.Random, size: int, lesions: int, largest: int | None = None) -> Slice:
    """A random slice with `lesions` lesions whose largest is `largest` mm (random when None) and at least 4 mm ahead.

    Lesions keep 3 pixels from each other, from every organ and from the middle, so side and number are beyond doubt.
    """
    spacing = rng.choice(SPACINGS)
    half_axes = (
        rng.randint(round(size * 0.39), round(size * 0.46)),
        rng.randint(round(size * 0.32), round(size * 0.40)),
    )
    window, table = rng.choice(tuple(WINDOWS)), rng.random() < 0.5
    anatomy = _anatomy(size, half_axes, table)
    free = (anatomy > TISSUE - 5) & (anatomy < TISSUE + 5)
    free[:, size // 2 - 2 : size // 2 + 3] = False
    placed: list[Lesion] = []
    while len(placed) < lesions:
        placed.clear()
        top = rng.choice(SIZES) if largest is None else largest
        wanted = [top] + [rng.randint(SMALLEST, min(top - 4, 24)) for _ in range(lesions - 1)]
        taken = ~free
        for mm in wanted:
            place = _place(rng, taken, mm / spacing / 2 + 3)
            if place is None:
                break
            placed.append(Lesion(*place, mm, rng.randint(130, 190)))
            _block(taken, *place, mm / spacing / 2 + 1)
    placed.sort(key=lambda item: -item.mm)
    return Slice(size, spacing, half_axes, window, table, tuple(placed))


def _place(rng: random.Random, taken: np.ndarray, radius: float) -> tuple[float, float] | None:
    """A centre around which a disc of `radius` pixels meets nothing taken; None after 30 tries."""
    size = len(taken)
    ys, xs = np.ogrid[:size, :size]
    for _ in range(30):
        x, y = rng.uniform(radius, size - radius), rng.uniform(radius, size - radius)
        if not taken[(xs - x) ** 2 + (ys - y) ** 2 <= radius**2].any():
            return round(x, 2), round(y, 2)
    return None


def _block(taken: np.ndarray, x: float, y: float, radius: float) -> None:
    ys, xs = np.ogrid[: len(taken), : len(taken)]
    taken |= (xs - x) ** 2 + (ys - y) ** 2 <= radius**2


def render(item: Slice, noise_seed: int, noise: float = 3.0) -> np.ndarray:
    """The slice in HU (H, W) float32, with Gaussian noise of `noise` HU."""
    hu = _anatomy(item.size, item.half_axes, item.table).copy()
    for lesion in item.lesions:
        radius = lesion.mm / item.spacing / 2
        paint(hu, cover(item.size, lesion.x, lesion.y, radius, radius), lesion.hu)
    return hu + np.random.default_rng(noise_seed).normal(0, noise, hu.shape).astype(np.float32)


def write_dicom(path: Path, hu: np.ndarray, item: Slice, number: int, series: str) -> None:
    """Write `hu` as a CT Image Storage file (explicit little endian, 12 bits stored, intercept -1024).

    `series` and `number` make the UIDs and the plainly synthetic patient id. Needs pydicom: the `medical` extra.
    """
    try:
        from pydicom.uid import CTImageStorage, generate_uid
    except ImportError as error:
        raise ImportError("writing DICOM needs pydicom: pip install 'radio-vlm[medical]'") from error
    data = phantom_dataset(CTImageStorage, series, number, hu.shape)
    centre, width = WINDOWS[item.window]
    values = {
        "FrameOfReferenceUID": generate_uid(entropy_srcs=[series, str(number), "frame"]),
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "Modality": "CT",
        "BodyPartExamined": "ABDOMEN",
        "ImagePositionPatient": [-item.size * item.spacing / 2, -item.size * item.spacing / 2, 0.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [item.spacing, item.spacing],
        "SliceThickness": 5,
        "KVP": 120,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
        "WindowCenter": centre,
        "WindowWidth": width,
        "WindowCenterWidthExplanation": item.window.upper(),
    }
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.PixelData = np.clip(hu.round() + 1024, 0, 4095).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)
