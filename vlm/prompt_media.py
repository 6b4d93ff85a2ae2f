"""Opens the media of a conversation: what each writes into the prompt, and the packed pixels, or only the former.

Files are opened by `vlm.media` where the package is installed; a checkpoint used on its own opens what Pillow opens and
takes videos as frames. All pictures of a prompt are planned together, since they share its budget.
"""

import logging
from dataclasses import dataclass

import torch
from transformers.image_utils import load_image as load_plain_image

from projectors.components import num_tokens
from vlm.chat import MediaItem
from vlm.errors import SampleError
from vlm.geometry import PicturePlan, Size, plan_prompt
from vlm.prompt_tokens import IMAGE_TYPE, VIDEO_TYPE, MediaPrompt
from vlm.video_prompt import clip_of, video_text

logger = logging.getLogger(__name__)

TENSORS = ("pixel_values", "pixel_values_videos", "image_grid_hw", "video_grid_thw")
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


@dataclass
class Opened:
    """A medium: its size, a video's number of frames and their times, and the image or frames themselves."""

    size: Size
    frames: int = 0
    times: list[float] | None = None
    pixels: object = None


def prepare_media(
    media: list[MediaItem],
    image_processor,
    projector_config: dict,
    video: dict,
    chunks: dict[str, str],
    token_ids: dict[str, int],
    dtype: torch.dtype | None,
    sample_id: object = None,
) -> tuple[list[MediaPrompt], dict[str, torch.Tensor]]:
    """Opens `media` in order.

    Args:
        chunks: What one image or group of frames looks like in the prompt, by kind: "<img><image></img>".
        token_ids: Id of the placeholder in it, by kind.
        dtype: Of the pixels; None: sizes are read from headers, where these tell, and no pixels come out.
        sample_id: Named when pictures have to shrink to fit `geometry["max_prompt_patches"]`.

    Returns:
        One `MediaPrompt` an item, and pixels and grids under the model's names. Videos have all their tokens.

    Raises:
        SampleError: no_media, bad_image, bad_video, too_many_patches, and the reasons of the readers.
    """
    opened = [_guarded(item, _open, item, image_processor, video, dtype is None) for item in media]
    try:
        planned = plan_prompt([one.size for one in opened], image_processor.geometry, video)
    except ValueError as error:
        raise SampleError(str(error), reason="too_many_patches") from error
    if planned.message and dtype is not None:
        logger.warning("%s%s", "" if sample_id is None else f"{sample_id}: ", planned.message)
    prompts, parts = [], {name: [] for name in TENSORS}
    for item, one, plan in zip(media, opened, planned.plans):
        if dtype is not None:
            _guarded(item, _pack, item, one, plan, image_processor, video, dtype, parts)
        counts = [num_tokens(projector_config, *grid) for grid in plan.maps]
        if item.kind == "image":
            parts["image_grid_hw"] += plan.maps
            prompts.append(MediaPrompt(chunks["image"], [sum(counts)], token_ids["image"], IMAGE_TYPE))
            continue
        parts["video_grid_thw"].append((one.size.frames, *plan.maps[0]))
        text = video_text(one.frames, one.times, chunks["video"], video)
        groups = -(-one.size.frames // video["temporal_pool"])
        prompts.append(MediaPrompt(text, counts[:1] * groups, token_ids["video"], VIDEO_TYPE))
    tensors = {name: torch.cat(parts[name]) for name in TENSORS[:2] if parts[name]}
    return prompts, tensors | {name: torch.tensor(parts[name]) for name in TENSORS[2:] if parts[name]}


def _guarded(item: MediaItem, function, *args):
    """`function(*args)`; whatever goes wrong with a medium is a SampleError."""
    try:
        return function(*args)
    except SampleError:
        raise
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        path = item.source if isinstance(item.source, str) else None
        raise SampleError(f"unusable {item.kind}: {error}", path=path, reason=f"bad_{item.kind}") from error


def _open(item: MediaItem, image_processor, video: dict, only_size: bool) -> Opened:
    """An image or clip; with `only_size` from the header where that tells."""
    if item.source is None:
        raise SampleError(f"a {item.kind} item has no {item.kind} (path, url, image or frames)", reason="no_media")
    if item.kind == "image" and is_page(item.source):  # opened in its turn: a long document need not lie in memory
        return Opened(Size(*item.source.size()), pixels=item.source)
    if item.kind == "image":
        image = _header(item.source) if only_size else open_image(item.source)
        return Opened(Size(*(image if isinstance(image, tuple) else image_processor.picture_size(image))), pixels=image)
    frames, times = open_video(item.source, item.timestamps, video, item.options)
    tubelets = -(-len(frames) // video["temporal_patch_size"])
    return Opened(Size(*image_processor.picture_size(frames[0]), frames=tubelets), len(frames), times, frames)


def _header(source):
    """(height, width) of a file's picture where the radio-vlm package is installed, else the picture."""
    if not isinstance(source, (str, bytes, dict)) and not hasattr(source, "__fspath__"):
        return source
    try:
        from vlm.media.sizes import image_size
    except ImportError:
        return open_image(source)
    return image_size(source)


def _pack(item: MediaItem, one: Opened, plan: PicturePlan, image_processor, video: dict, dtype, parts: dict) -> None:
    """Adds a medium's patches to `parts`."""
    if item.kind == "image":
        parts["pixel_values"].append(image_processor.image_patches(open_image(one.pixels), dtype, plan)[0])
    else:
        parts["pixel_values_videos"].append(image_processor.video_patches(one.pixels, video, dtype, plan)[0])
