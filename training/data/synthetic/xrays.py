"""Synthetic chest-X-ray-like images with known findings, and their writing as real DICOM files (DX) with pydicom.

A patient is an anatomy: thorax, two lungs, heart, spine, ribs. A picture of the patient adds findings, exposure and
noise: a heart too wide (cardiomegaly, by the cardiothoracic ratio), fluid in the bottom of one lung (effusion), a small
round shadow in a lung (nodule). They are drawings, made so that a finding is there or not beyond doubt.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.synthetic.phantom import phantom_dataset

LABELS = ("cardiomegaly", "effusion", "nodule")
NORMAL_RATIO, LARGE_RATIO = (0.40, 0.48), (0.57, 0.66)  # heart width / thorax width; nothing in between
BODY, LUNG, HEART, FLUID, RIB, SPINE = 0.62, 0.22, 0.72, 0.68, 0.10, 0.16


@dataclass(frozen=True)
class Patient:
    """An anatomy, in shares of the picture's side."""

    thorax: float
    """Half the inner width of the thorax."""
    top: float
    bottom: float
    tilt: float
    """How much further the heart reaches to the patient's left than to the right."""
    ribs: int

    def content(self) -> str:
        """What makes two patients the same."""
        return f"{self.thorax:.3f} {self.top:.3f} {self.bottom:.3f} {self.tilt:.3f} {self.ribs}"


@dataclass(frozen=True)
class Xray:
    """A picture of a patient. `ratio` is the cardiothoracic ratio; sides are the patient's (right is on the left)."""

    patient: Patient
    ratio: float
    fluid: tuple[str, float] | None
    """Side, and the height of the fluid in shares of the lung."""
    nodule: tuple[float, float, float] | None
    """Centre (x, y) and radius, in shares of the picture."""
    exposure: float

    def findings(self) -> dict[str, bool]:
        """Finding -> whether it is there."""
        large = self.ratio >= LARGE_RATIO[0]
        return {"cardiomegaly": large, "effusion": self.fluid is not None, "nodule": self.nodule is not None}


def random_patient(rng: random.Random) -> Patient:
    """An anatomy drawn at random."""
    return Patient(
        rng.uniform(0.34, 0.42),
        rng.uniform(0.12, 0.18),
        rng.uniform(0.76, 0.84),
        rng.uniform(0.1, 0.3),
        rng.randint(6, 9),
    )


def random_xray(rng: random.Random, patient: Patient, findings: dict[str, bool] | None = None) -> Xray:
    """A picture of `patient`; each finding is there with probability one half unless `findings` says."""
    has = findings or {label: rng.random() < 0.5 for label in LABELS}
    ratio = rng.uniform(*(LARGE_RATIO if has["cardiomegaly"] else NORMAL_RATIO))
    fluid = (rng.choice(("left", "right")), rng.uniform(0.18, 0.4)) if has["effusion"] else None
    nodule = None
    if has["nodule"]:
        # In the upper half of a lung, off the heart and the fluid, so that it can be seen.
        side, height = rng.choice((-1, 1)), patient.bottom - patient.top
        x = 0.5 + side * patient.thorax * rng.uniform(0.45, 0.62)
        nodule = (x, patient.top + height * rng.uniform(0.28, 0.45), rng.uniform(0.030, 0.045))
    return Xray(patient, ratio, fluid, nodule, rng.uniform(0.85, 1.15))


def _ellipse(size: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """How much of each pixel (H, W) an ellipse covers, 0 … 1; centre and half axes in shares of the side."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    radius = np.sqrt(((axis - x) / rx)[None, :] ** 2 + ((axis - y) / ry)[:, None] ** 2)
    return np.clip(0.5 + (1 - radius) * min(rx, ry) * size, 0, 1)


def render(item: Xray, noise_seed: int, size: int = 64, noise: float = 0.02) -> np.ndarray:
    """The picture (H, W) float32 in 0 … 1, dense tissue bright, with Gaussian noise."""
    one = item.patient
    middle, height = (one.top + one.bottom) / 2, (one.bottom - one.top) / 2
    picture = np.full((size, size), 0.05, np.float32)
    picture += _ellipse(size, 0.5, 0.6, one.thorax + 0.1, 0.6) * (BODY - 0.05)
    rows = ((np.arange(size) + 0.5) / size)[:, None]
    for side, sign in (("right", -1), ("left", 1)):
        lung = _ellipse(size, 0.5 + sign * one.thorax * 0.52, middle, one.thorax * 0.46, height)
        picture += lung * (LUNG - BODY)
        if item.fluid and item.fluid[0] == side:
            surface = one.bottom - 2 * height * item.fluid[1]
            picture += lung * np.clip((rows - surface) * size / 2 + 0.5, 0, 1) * (FLUID - LUNG)
    stripes = np.maximum(0, np.cos((rows - one.top) / (one.bottom - one.top) * 2 * np.pi * one.ribs)) ** 4
    picture += RIB * stripes * _ellipse(size, 0.5, middle, one.thorax, height)
    picture += SPINE * _ellipse(size, 0.5, 0.5, 0.03, 0.6)
    # thorax width times ratio; the heart hangs over to the patient's left, on the right of the picture
    width = one.thorax * item.ratio
    heart = _ellipse(size, 0.5 + width * one.tilt, one.bottom - 0.16, width, 0.15)
    picture += heart * np.maximum(0, HEART - picture)
    if item.nodule:
        x, y, radius = item.nodule
        picture += _ellipse(size, x, y, radius, radius) * 0.3
    picture *= item.exposure
    return np.clip(picture + np.random.default_rng(noise_seed).normal(0, noise, picture.shape), 0, 1).astype(np.float32)


def write_dicom(path: Path, picture: np.ndarray, series: str, number: int, modality: str = "DX") -> None:
    """Write a picture (H, W) in 0 … 1 as a digital X-ray (12 bits stored, MONOCHROME2); needs the `medical` extra.

    `series` and `number` make the UIDs and the plainly synthetic patient id.
    """
    try:
        from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation
    except ImportError as error:
        raise ImportError("writing DICOM needs pydicom: pip install 'radio-vlm[medical]'") from error
    if modality not in ("DX", "CR"):
        raise ValueError(f"modality must be DX or CR, not {modality}")
    sop_class = DigitalXRayImageStorageForPresentation if modality == "DX" else ComputedRadiographyImageStorage
    data = phantom_dataset(sop_class, series, number, picture.shape, modality)
    values = {
        "ImageType": ["DERIVED", "SECONDARY"],
        "Modality": modality,
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PixelIntensityRelationship": "LIN",
        "PixelIntensityRelationshipSign": -1,
        "RescaleIntercept": 0,
        "RescaleType": "US",
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "ImagerPixelSpacing": [350 / picture.shape[0], 350 / picture.shape[1]],
    }
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.PixelData = (np.clip(picture, 0, 1) * 4095).round().astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)
