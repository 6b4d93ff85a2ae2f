"""Opens the media of a conversation for backends whose model is not ours: RGB pictures, pages, frames with times.

The same readers as our own processor uses (`vlm.media`), so that peers are shown the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from eval.backends.base import Messages
from vlm.chat import VIDEO_OPTIONS
from vlm.errors import SampleError
from vlm.prompt_documents import expand_documents
from vlm.prompt_media import open_image, open_video
from vlm.prompt_volumes import expand_volumes
from vlm.rgb import to_rgb
from vlm.video_prompt import video_text
from vlm.video_settings import DEFAULT_VIDEO

VIDEO = {name: DEFAULT_VIDEO[name] for name in ("max_frames", "fps")}


@dataclass(frozen=True)
class FrameSampling:
    """How a backend samples videos, in the place of a processor: the control of shuffled frames reads `video`."""

    video: Mapping[str, Any] = field(default_factory=lambda: dict(VIDEO))


@dataclass(frozen=True)
class Clip:
    """Frames of a video and, where known, the second at which each is shown."""

    frames: list[Image.Image]
    timestamps: list[float] | None

    def labels(self) -> list[str]:
        """What stands before each frame where a model takes pictures only: the words of our own prompts."""
        marked = video_text(len(self.frames), self.timestamps, "\0", {})
        return marked.split("\0")[:-1]


def items_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The content of a message as items."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def open_media(messages: Messages, video: Mapping[str, Any]) -> Messages:
    """The conversation with every medium opened.

    Content becomes items `{"type": "text", "text"}`, `{"type": "image", "image": PIL RGB}` and
    `{"type": "video", "video": Clip}`; documents become labelled pages. `video`: max_frames and fps where an item does
    not say otherwise.

    Raises SampleError for what cannot be read.
    """
    return [
        {**message, "content": [_opened(item, video) for item in items_of(message)]}
        for message in expand_volumes(expand_documents(messages))
    ]


def frames_as_images(messages: Messages) -> Messages:
    """The conversation with every clip as pictures, each behind the time at which it is shown."""
    changed = []
    for message in messages:
        content: list[dict[str, Any]] = []
        for item in message["content"]:
            if item["type"] != "video":
                content.append(item)
                continue
            for label, frame in zip(item["video"].labels(), item["video"].frames):
                content += [{"type": "text", "text": label}, {"type": "image", "image": frame}]
            content.append({"type": "text", "text": "\n"})
        changed.append({**message, "content": content})
    return changed


def media_of(messages: Messages, kind: str) -> list[Any]:
    """The opened images or clips of a conversation, in order."""
    return [item[kind] for message in messages for item in message["content"] if item["type"] == kind]


def _opened(item: dict[str, Any], video: Mapping[str, Any]) -> dict[str, Any]:
    kind = item["type"]
    if kind == "text":
        return {"type": "text", "text": item["text"]}
    if kind not in ("image", "video"):
        raise SampleError(f"content item {item!r:.80} is not one of: text, image, video, document")
    if item.get(kind) is None:
        raise SampleError(f"a {kind} item has no {kind} (a path, or the pixels)", reason="no_media")
    if kind == "image":
        return {"type": "image", "image": _picture(item["image"])}
    own = {name: item[name] for name in VIDEO_OPTIONS if item.get(name) is not None}
    frames, timestamps = open_video(item["video"], item.get("timestamps"), dict(video), own)
    return {"type": "video", "video": Clip([_picture(frame) for frame in frames], timestamps)}


def _picture(source: Any) -> Image.Image:
    """A path, page, PIL image or (3, H, W) / (H, W, 3) uint8 array -> RGB."""
    opened = open_image(source)
    if isinstance(opened, Image.Image):
        return to_rgb(opened)
    array = np.asarray(opened)
    if array.dtype != np.uint8 or array.ndim != 3 or 3 not in (array.shape[0], array.shape[-1]):
        raise SampleError(f"a frame must be (3, H, W) or (H, W, 3) uint8, not {array.shape} {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array if array.shape[-1] == 3 else array.transpose(1, 2, 0)))
