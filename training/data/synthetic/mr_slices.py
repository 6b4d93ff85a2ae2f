"""Synthetic MR-like slices of a head in three contrasts, and their writing as real DICOM files with pydicom.

They are what an expert for CT must not be asked about: skull, brain, ventricles and sometimes a lesion, whose order of
brightness is that of the sequence (fluid is dark in T1 and FLAIR, bright in T2). No unit, as in real MR.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.synthetic.phantom import phantom_dataset
from training.data.synthetic.slices import cover, paint

# Brightness of fat, brain, fluid, lesion in stored values of 0 … 1000.
CONTRASTS = {"T1": (900, 520, 120, 380), "T2": (620, 380, 950, 820), "FLAIR": (560, 430, 90, 900)}


@dataclass(frozen=True)
class Head:
    """Half axes of the head and of a ventricle, place and radius of a lesion; in shares of the picture's side."""

    half_axes: tuple[float, float]
    ventricle: tuple[float, float]
    lesion: tuple[float, float, float] | None

    def content(self) -> str:
        """What makes two heads the same."""
        return " ".join(f"{value:.3f}" for value in (*self.half_axes, *self.ventricle, *(self.lesion or ())))


def random_head(rng: random.Random) -> Head:
    """A head drawn at random, with a lesion in every second one."""
    half_axes = rng.uniform(0.30, 0.36), rng.uniform(0.38, 0.44)
    lesion = None
    if rng.random() < 0.5:
        x = 0.5 + rng.choice((-1, 1)) * half_axes[0] * rng.uniform(0.5, 0.62)
        lesion = (x, 0.5 + half_axes[1] * rng.uniform(-0.4, 0.4), rng.uniform(0.03, 0.06))
    return Head(half_axes, (rng.uniform(0.03, 0.05), rng.uniform(0.08, 0.13)), lesion)


def render(item: Head, sequence: str, noise_seed: int, size: int = 96, noise: float = 12.0) -> np.ndarray:
    """The slice (H, W) float32 in stored values, with Gaussian noise of `noise`; air is 0."""
    fat, brain, fluid, lesion = CONTRASTS[sequence]
    picture, (rx, ry), middle = np.zeros((size, size), np.float32), item.half_axes, size / 2
    for shrunk, value in ((0.0, fat), (0.035, 40), (0.06, brain)):  # scalp, bone, brain
        paint(picture, cover(size, middle, middle, (rx - shrunk) * size, (ry - shrunk) * size), value)
    for sign in (-1, 1):
        x = middle + sign * item.ventricle[0] * 1.4 * size
        paint(picture, cover(size, x, middle, item.ventricle[0] * size, item.ventricle[1] * size), fluid)
    if item.lesion:
        x, y, radius = (value * size for value in item.lesion)
        paint(picture, cover(size, x, y, radius, radius), lesion)
    return np.maximum(picture + np.random.default_rng(noise_seed).normal(0, noise, picture.shape), 0).astype(np.float32)


def write_dicom(path: Path, picture: np.ndarray, sequence: str, series: str, number: int) -> None:
    """Write `picture` as an MR Image Storage file; needs the `medical` extra. The header names the sequence."""
    try:
        from pydicom.uid import MRImageStorage
    except ImportError as error:
        raise ImportError("writing DICOM needs pydicom: pip install 'radio-vlm[medical]'") from error
    data = phantom_dataset(MRImageStorage, series, number, picture.shape, "MR")
    spacing = 240 / picture.shape[0]
    values = {
        "ImageType": ["DERIVED", "SECONDARY"],
        "Modality": "MR",
        "BodyPartExamined": "HEAD",
        "ProtocolName": sequence,
        "ImagePositionPatient": [-120, -120, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [spacing, spacing],
        "SliceThickness": 5,
        "RescaleIntercept": 0,
        "RescaleType": "US",
        "WindowCenter": 500,
        "WindowWidth": 1000,
    }
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.PixelData = np.clip(picture.round(), 0, 4095).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)
