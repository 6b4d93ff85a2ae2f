"""Opens the media of a conversation: what each writes into the prompt, and the packed pixels.

Files are opened by `vlm.media` where the package is installed; a checkpoint used on its own opens what Pillow opens and
takes videos as frames.
"""

import torch
from transformers.image_utils import load_image as load_plain_image

from projectors.components import num_tokens
from vlm.chat import MediaItem
from vlm.errors import SampleError
from vlm.prompt_tokens import IMAGE_TYPE, VIDEO_TYPE, MediaPrompt
from vlm.video_prompt import clip_of, video_text

MAX_FRAMES = 128  # where `video["max_frames"]` sets no bound


def open_image(source):
    """A path or URL -> PIL image; anything else passes through."""
    if not isinstance(source, (str, bytes, dict)) and not hasattr(source, "__fspath__"):
        return source
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


def open_video(source, timestamps: list[float] | None, video: dict) -> tuple[list, list[float] | None]:
    """A path, frames or tensor -> (frames, timestamps or None), at most `video["max_frames"]`."""
    if not isinstance(source, str) and not hasattr(source, "__fspath__"):
        return clip_of(source, timestamps, video["max_frames"], open_image)
    try:
        from vlm.media.video import load_video
    except ImportError as error:
        message = "video files are read by the radio-vlm package (`import vlm`); here pass the frames"
        raise SampleError(message, path=source, reason="no_video_reader") from error
    clip = load_video(source, max_frames=video["max_frames"] or MAX_FRAMES, fps=video["fps"])
    return clip.frames, clip.timestamps


def prepare_media(
    media: list[MediaItem],
    image_processor,
    projector_config: dict,
    video: dict,
    chunks: dict[str, str],
    token_ids: dict[str, int],
    dtype: torch.dtype,
) -> tuple[list[MediaPrompt], dict[str, torch.Tensor]]:
    """Opens `media` in order.

    Args:
        chunks: What one image or tubelet looks like in the prompt, by kind: "<img><image></img>".
        token_ids: Id of the placeholder in it, by kind.

    Returns:
        One `MediaPrompt` an item, and the pixel tensors under the model's names.

    Raises:
        SampleError: no_media, bad_image, bad_video, and the reasons of the readers.
    """
    prompts, images, grids, clips, thws = [], [], [], [], []
    for item in media:
        if item.source is None:
            raise SampleError(f"a {item.kind} item has no {item.kind} (path, url, image or frames)", reason="no_media")
        try:
            if item.kind == "image":
                patches, grid = image_processor.image_patches(open_image(item.source), dtype)
                images.append(patches)
                grids.append(grid)
                counts, text, token_type = [num_tokens(projector_config, *grid)], chunks["image"], IMAGE_TYPE
            else:
                frames, times = open_video(item.source, item.timestamps, video)
                patches, thw = image_processor.video_patches(frames, video, dtype)
                clips.append(patches)
                thws.append(thw)
                counts, token_type = [num_tokens(projector_config, *thw[1:])] * thw[0], VIDEO_TYPE
                text = video_text(len(frames), times, chunks["video"], video)
        except SampleError:
            raise
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            path = item.source if isinstance(item.source, str) else None
            raise SampleError(f"unusable {item.kind}: {error}", path=path, reason=f"bad_{item.kind}") from error
        prompts.append(MediaPrompt(text, counts, token_ids[item.kind], token_type))
    tensors = {}
    if images:
        tensors |= {"pixel_values": torch.cat(images), "image_grid_hw": torch.tensor(grids)}
    if clips:
        tensors |= {"pixel_values_videos": torch.cat(clips), "video_grid_thw": torch.tensor(thws)}
    return prompts, tensors
