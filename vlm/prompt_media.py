"""Opens the media of a conversation: what each writes into the prompt, and the packed pixels.

Files are opened by `vlm.media` where the package is installed; a checkpoint used on its own opens what Pillow opens and
takes videos as frames. All pictures of a prompt are planned together, since they share its budget.
"""

import logging

import torch
from transformers.image_utils import load_image as load_plain_image

from projectors.components import num_tokens
from vlm.chat import MediaItem
from vlm.errors import SampleError
from vlm.geometry import PicturePlan, Size, plan_prompt
from vlm.prompt_tokens import IMAGE_TYPE, VIDEO_TYPE, MediaPrompt
from vlm.video_prompt import clip_of, video_text

logger = logging.getLogger(__name__)

MAX_FRAMES = 128  # where `video["max_frames"]` sets no bound


def open_image(source):
    """A path, URL or page of a document -> PIL image; anything else passes through."""
    if not isinstance(source, (str, bytes, dict)) and not hasattr(source, "__fspath__"):
        return source.open() if is_page(source) else source
    try:
        from vlm.media.image import load_image
    except ImportError:
        load_image = None
    if load_image is not None:
        return load_image(source)
    try:
        return load_plain_image(str(source))
    except Exception as error:
        raise SampleError(f"cannot open image: {error}", path=source, reason="unreadable_image") from error


def is_page(source) -> bool:
    """Whether this is a page of a document, `vlm.media.pages.PageRef`, which is not part of an exported checkpoint."""
    return type(source).__name__ == "PageRef"


def open_video(
    source, timestamps: list[float] | None, video: dict, options: dict | None = None
) -> tuple[list, list[float] | None]:
    """A path, frames or tensor -> (frames, timestamps or None), at most `video["max_frames"]`.

    `options`: start, end (seconds of a file), fps, max_frames, instead of those of `video`.
    """
    options = options or {}
    if not isinstance(source, str) and not hasattr(source, "__fspath__"):
        if cut := sorted({"start", "end", "fps"} & set(options)):
            raise SampleError(f"{', '.join(cut)}: only for video files, not for frames", reason="bad_range")
        return clip_of(source, timestamps, options.get("max_frames", video["max_frames"]), open_image)
    try:
        from vlm.media.video import load_video
    except ImportError as error:
        message = "video files are read by the radio-vlm package (`import vlm`); here pass the frames"
        raise SampleError(message, path=source, reason="no_video_reader") from error
    clip = load_video(source, **{"max_frames": video["max_frames"] or MAX_FRAMES, "fps": video["fps"], **options})
    return clip.frames, clip.timestamps


def prepare_media(
    media: list[MediaItem],
    image_processor,
    projector_config: dict,
    video: dict,
    chunks: dict[str, str],
    token_ids: dict[str, int],
    dtype: torch.dtype,
    sample_id: object = None,
) -> tuple[list[MediaPrompt], dict[str, torch.Tensor]]:
    """Opens `media` in order.

    Args:
        chunks: What one image or group of frames looks like in the prompt, by kind: "<img><image></img>".
        token_ids: Id of the placeholder in it, by kind.
        sample_id: Named when pictures have to shrink to fit `geometry["max_prompt_patches"]`.

    Returns:
        One `MediaPrompt` an item, and the pixel tensors under the model's names. Videos have all their tokens.

    Raises:
        SampleError: no_media, bad_image, bad_video, too_many_patches, and the reasons of the readers.
    """
    opened = [_guarded(item, _open, item, image_processor, video) for item in media]
    try:
        planned = plan_prompt([size for _, _, size in opened], image_processor.geometry, video)
    except ValueError as error:
        raise SampleError(str(error), reason="too_many_patches") from error
    if planned.message:
        logger.warning("%s%s", "" if sample_id is None else f"{sample_id}: ", planned.message)
    prompts, parts = [], {"images": [], "grids": [], "clips": [], "thws": []}
    for item, (pixels, times, _), plan in zip(media, opened, planned.plans):
        counts, text = _guarded(item, _pack, item, pixels, times, plan, image_processor, video, dtype, parts)
        own = [num_tokens(projector_config, *grid) for grid in counts]
        if item.kind == "image":
            prompts.append(MediaPrompt(chunks["image"], [sum(own)], token_ids["image"], IMAGE_TYPE))
        else:
            prompts.append(MediaPrompt(text(chunks["video"]), own, token_ids["video"], VIDEO_TYPE))
    tensors = {}
    if parts["images"]:
        tensors |= {"pixel_values": torch.cat(parts["images"]), "image_grid_hw": torch.tensor(parts["grids"])}
    if parts["clips"]:
        tensors |= {"pixel_values_videos": torch.cat(parts["clips"]), "video_grid_thw": torch.tensor(parts["thws"])}
    return prompts, tensors


def _guarded(item: MediaItem, function, *args):
    """`function(*args)`; whatever goes wrong with a medium is a SampleError."""
    try:
        return function(*args)
    except SampleError:
        raise
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        path = item.source if isinstance(item.source, str) else None
        raise SampleError(f"unusable {item.kind}: {error}", path=path, reason=f"bad_{item.kind}") from error


def _open(item: MediaItem, image_processor, video: dict) -> tuple[object, list[float] | None, Size]:
    """(image or frames, timestamps, size)."""
    if item.source is None:
        raise SampleError(f"a {item.kind} item has no {item.kind} (path, url, image or frames)", reason="no_media")
    if item.kind == "image" and is_page(item.source):  # opened in its turn: a long document need not lie in memory
        return item.source, None, Size(*item.source.size())
    if item.kind == "image":
        image = open_image(item.source)
        return image, None, Size(*image_processor.picture_size(image))
    frames, times = open_video(item.source, item.timestamps, video, item.options)
    tubelets = -(-len(frames) // video["temporal_patch_size"])
    return frames, times, Size(*image_processor.picture_size(frames[0]), frames=tubelets)


def _pack(
    item: MediaItem, pixels, times, plan: PicturePlan, image_processor, video: dict, dtype: torch.dtype, parts: dict
):
    """Adds a medium's patches to `parts`; returns the grids whose tokens it has, and how a video's text is written."""
    if item.kind == "image":
        patches, plan = image_processor.image_patches(open_image(pixels), dtype, plan)
        parts["images"].append(patches)
        parts["grids"] += plan.maps
        return plan.maps, None
    patches, thw = image_processor.video_patches(pixels, video, dtype, plan)
    parts["clips"].append(patches)
    parts["thws"].append(thw)
    groups = -(-thw[0] // video["temporal_pool"])
    return [thw[1:]] * groups, lambda chunk: video_text(len(pixels), times, chunk, video)
