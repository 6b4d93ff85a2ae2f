"""RADIO feature maps: patch features of a few inputs as colours, through ONE principal-component basis for all of them.

A basis of its own for every picture would make colours mean nothing across pictures. Here the same colour is the same
direction in feature space, in every input and every checkpoint shown: the basis is that of all their patches.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

logger = logging.getLogger(__name__)

Features = tuple[torch.Tensor, tuple[int, int]]  # (h·w, D), (h, w)


# How the three components become a colour: the first is lightness, the others run from blue to orange and from violet
# to green. A component for each of red, green and blue would say the same, in colours that hurt.
LIGHTNESS, CHROMA = (0.12, 0.94), torch.tensor([[0.24, 0.02, -0.26], [-0.16, 0.17, -0.12]], dtype=torch.float64)


@dataclass
class Basis:
    """Mean (D,), components (D, 3) and, for each component, the range (2, 3) that is shown."""

    mean: torch.Tensor
    components: torch.Tensor
    span: torch.Tensor

    def colours(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) → (N, 3) red, green, blue in [0, 1]."""
        projected = (features - self.mean) @ self.components
        share = ((projected - self.span[0]) / (self.span[1] - self.span[0]).clamp(min=1e-9)).clamp(0, 1)
        light = LIGHTNESS[0] + (LIGHTNESS[1] - LIGHTNESS[0]) * share[:, :1]
        return (light + (2 * share[:, 1:] - 1) @ CHROMA).clamp(0, 1)


def fit_basis(features: torch.Tensor) -> Basis:
    """Three principal components of (N, D); signs fixed, so that the same data always give the same colours."""
    features = features.double()
    mean = features.mean(0)
    _, _, axes = torch.linalg.svd(features - mean, full_matrices=False)
    components = axes[:3].T
    strongest = components.abs().argmax(0)
    components = components * components.gather(0, strongest[None]).sign()
    components = torch.nn.functional.pad(components, (0, 3 - components.shape[1]))  # fewer than 3 patches or channels
    projected = (features - mean) @ components
    return Basis(mean, components, torch.quantile(projected, torch.tensor([0.02, 0.98]).double(), dim=0))


def to_image(basis: Basis, features: Features) -> Image.Image:
    """One pixel a patch; the page enlarges it without smoothing."""
    values, (h, w) = features
    pixels = (basis.colours(values.double()) * 255).round().to(torch.uint8).reshape(h, w, 3)
    return Image.fromarray(pixels.numpy())


@torch.no_grad()
def encode(checkpoint: str | Path, images: list[Image.Image], max_patches: int = 1024) -> list[Features]:
    """Patch features of every image from the vision model of a checkpoint."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import vlm  # noqa: F401  registers our classes with the Auto ones

    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    processor = AutoProcessor.from_pretrained(checkpoint).image_processor
    out: list[Features] = []
    for image in images:
        pixels, plan = processor.image_patches(image)
        if plan.num_patches > max_patches:  # a report is no place to wait for a page of a thousand patches
            image = image.copy()
            image.thumbnail([max(int(side * (max_patches / plan.num_patches) ** 0.5), 32) for side in image.size])
            pixels, plan = processor.image_patches(image)
        grid = plan.views[-1]  # of tiles the thumbnail, of scales the last view
        pixels = pixels[-grid[0] * grid[1] :]
        features = model.vision_model(pixel_values=pixels.to(model.dtype), grids=[grid]).features
        out.append((features.float(), grid))
    return out


def maps_of(checkpoints: list[Path], images: list[Image.Image]) -> list[list[Image.Image]]:
    """For every checkpoint the feature maps of all images, in one basis. Checkpoints of other widths are left out."""
    encoded = [encode(checkpoint, images) for checkpoint in checkpoints]
    width = encoded[-1][0][0].shape[1]
    encoded = [features for features in encoded if features[0][0].shape[1] == width]
    basis = fit_basis(torch.cat([values for features in encoded for values, _ in features]))
    return [[to_image(basis, one) for one in features] for features in encoded]
