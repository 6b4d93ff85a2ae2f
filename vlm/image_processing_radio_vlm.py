"""Pixels for RADIO: any image or clip becomes packed patches in [0, 1] as `vlm.geometry` plans.

Plain torch and Pillow, so a checkpoint opens without torchvision. Normalisation is RADIO's own (its input conditioner
inside the model); doing it here too would apply it twice.
"""

import logging

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.processing_utils import ImagesKwargs

from vlm.geometry import Canvas, PicturePlan, Size, check_geometry, plan_frame, plan_picture, plan_prompt
from vlm.patch_resize import resize, resize_to_patches, to_patches
from vlm.rgb import ORIENTATION, to_rgb
from vlm.self_contained import SelfContainedMixin

__all__ = ["RadioVLMImageProcessor", "flat_images", "picture_size", "resize", "to_patches", "to_tensor"]
logger = logging.getLogger(__name__)


class RadioVLMImageProcessorKwargs(ImagesKwargs, total=False):
    """`geometry` (see `vlm.geometry`) and `clamp`: whether bicubic overshoot is cut back to [0, 1]."""

    geometry: dict
    clamp: bool


def to_tensor(image) -> torch.Tensor:
    """PIL image, array or tensor -> (3, H, W): uint8, or float32 in [0, 255] when the input was float in [0, 1].

    Arrays and tensors may be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels (the fourth is dropped).
    """
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)
    if isinstance(image, np.ndarray) and not image.flags.writeable:
        image = image.copy()
    pixels = torch.as_tensor(image)
    _array_size(tuple(pixels.shape))
    if pixels.ndim == 2:
        pixels = pixels[None]
    if _is_channels_last(tuple(pixels.shape)):
        pixels = pixels.permute(2, 0, 1)
    pixels = pixels[:3] if pixels.shape[0] >= 3 else pixels.expand(3, -1, -1)
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.is_floating_point():
        return pixels.float() * 255
    return pixels.clamp(0, 255).to(torch.uint8)


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] not in (1, 3, 4) and shape[-1] in (1, 3, 4)


def _array_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of an array of `shape`; ValueError if that is no image."""
    if len(shape) not in (2, 3):
        raise ValueError(f"an image has 2 or 3 dimensions, not the shape {shape}")
    if _is_channels_last(shape):
        return shape[:2]
    if len(shape) == 3 and shape[0] not in (1, 3, 4):
        raise ValueError(f"an image has 1, 3 or 4 channels; the shape is {shape}")
    return shape[-2:]


def picture_size(image) -> tuple[int, int]:
    """(height, width) of a PIL image, array or tensor, as a person would see it: after the turn its EXIF asks for."""
    if not isinstance(image, Image.Image):
        return _array_size(tuple(image.shape) if hasattr(image, "shape") else np.shape(image))
    width, height = image.size
    try:
        is_turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # noqa: BLE001 - damaged EXIF turns nothing, as in `to_rgb`
        is_turned = False
    return (width, height) if is_turned else (height, width)


class RadioVLMImageProcessor(SelfContainedMixin, BaseImageProcessor):
    """Images and frames -> packed patches.

    Args:
        geometry: How sizes are planned; see `vlm.geometry.check_geometry`.
        clamp: Cut bicubic overshoot back to [0, 1]. `False` keeps it, as NVIDIA's Omni processor does.
    """

    model_input_names = ["pixel_values", "image_grid_hw"]
    valid_kwargs = RadioVLMImageProcessorKwargs
    picture_size = staticmethod(picture_size)

    def __init__(self, geometry: dict | None = None, clamp: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.geometry = check_geometry(geometry or {})
        self.clamp = clamp

    def image_patches(
        self, image, dtype: torch.dtype = torch.float32, plan: PicturePlan | None = None
    ) -> tuple[torch.Tensor, PicturePlan]:
        """One image -> ((plan.num_patches, 3*P*P) patches, its plan).

        Args:
            dtype: float32 gives [0, 1]; uint8 gives rounded 0..255 (4 times smaller in a cache; exact when no resize
                was needed, within half a grey level otherwise).
            plan: Of the image among others of its prompt; default: `plan_picture` of the image alone.
        """
        pixels = to_tensor(image).cpu()
        plan = plan or plan_picture(pixels.shape[-2], pixels.shape[-1], self.geometry)
        return self._pack(pixels, plan.canvases, dtype), plan

    def video_patches(
        self,
        frames,
        video: dict | None = None,
        dtype: torch.dtype = torch.float32,
        plan: PicturePlan | None = None,
    ) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """One clip -> ((t * grid_h * grid_w, T*3*P*P) tubelets, (t, grid_h, grid_w)), T = temporal_patch_size.

        `frames`: (F, 3, H, W) tensor or a list of images (resized to the first one's grid if their sizes differ).
        The last frame is repeated until the count is a multiple of T, as the reference does. `plan`: of every frame;
        default: `plan_frame` of the first.
        """
        video = video or {}
        clip = [to_tensor(frame).cpu() for frame in frames]
        if not clip:
            raise ValueError("a video without frames")
        plan = plan or plan_frame(clip[0].shape[-2], clip[0].shape[-1], self.geometry, video)
        patches = torch.stack([self._pack(frame, plan.canvases, dtype) for frame in clip])
        depth = video.get("temporal_patch_size", 1)
        missing = -len(patches) % depth
        if missing:
            patches = torch.cat([patches, patches[-1:].expand(missing, -1, -1)])
        tubelets = patches.reshape(-1, depth, *patches.shape[1:]).transpose(1, 2).flatten(2)  # (t, gh*gw, T*C*P*P)
        return tubelets.flatten(0, 1), (tubelets.shape[0], *plan.maps[0])

    def _pack(self, image: torch.Tensor, canvases: tuple[Canvas, ...], dtype: torch.dtype) -> torch.Tensor:
        """(3, H, W) -> (patches of all canvases, 3*P*P) in `dtype`."""
        packed = [self._pack_canvas(image, canvas, dtype) for canvas in canvases]
        return packed[0] if len(packed) == 1 else torch.cat(packed)

    def _pack_canvas(self, image: torch.Tensor, canvas: Canvas, dtype: torch.dtype) -> torch.Tensor:
        """(3, H, W) -> (grid_h * grid_w, 3*P*P); without a resize the pixels stay exact."""
        patch, grid = self.geometry["patch_size"], (canvas.grid_h, canvas.grid_w)
        if tuple(image.shape[1:]) != (grid[0] * patch, grid[1] * patch):
            return resize_to_patches(image, *grid, patch, canvas.rows, canvas.cols, dtype, self.clamp)
        patches = to_patches(image[None], patch, canvas.rows, canvas.cols)[0]
        if dtype == torch.uint8:
            return patches if patches.dtype == torch.uint8 else patches.round().clamp_(0, 255).to(torch.uint8)
        was_exact = patches.dtype == torch.uint8
        patches = patches.to(dtype) / 255
        return patches.clamp_(0, 1) if self.clamp and not was_exact else patches

    def preprocess(self, images, return_tensors=None, **kwargs) -> BatchFeature:
        """Images -> pixel_values (total_patches, 3*P*P), image_grid_hw (num_maps, 2).

        One image or a list are one prompt, nested lists are one prompt each: its images share
        `geometry["max_prompt_patches"]`, and a warning says by how much they had to shrink.
        """
        if kwargs.get("geometry") is not None:
            return type(self)(kwargs["geometry"], kwargs.get("clamp", self.clamp)).preprocess(images, return_tensors)
        packed = [pair for prompt in _prompts(images) for pair in self._prompt_patches(prompt)]
        if not packed:
            raise ValueError("no image was given")
        data = {
            "pixel_values": packed[0][0] if len(packed) == 1 else torch.cat([patches for patches, _ in packed]),
            "image_grid_hw": torch.tensor([grid for _, plan in packed for grid in plan.maps]),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _prompt_patches(self, images: list) -> list[tuple[torch.Tensor, PicturePlan]]:
        planned = plan_prompt([Size(*picture_size(image)) for image in images], self.geometry)
        if planned.message:
            logger.warning(planned.message)
        return [self.image_patches(image, plan=plan) for image, plan in zip(images, planned.plans)]


def _prompts(images) -> list[list]:
    """Images as they are given -> the images of each prompt."""
    if isinstance(images, (list, tuple)) and images and all(isinstance(entry, (list, tuple)) for entry in images):
        return [flat_images(entry) for entry in images]
    return [flat_images(images)]


def flat_images(images) -> list:
    """One image or nested lists of images -> a flat list; a 4-D array or tensor is a batch."""
    if isinstance(images, (list, tuple)):
        return [image for entry in images for image in flat_images(entry)]
    if getattr(images, "ndim", 3) == 4:
        return list(images)
    return [images]
