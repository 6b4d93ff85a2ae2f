"""A conversation as an OpenAI-compatible server takes it: pictures as data URLs, frames of videos with their times.

What is sent is bounded. JPEG and PNG files go as they are, so that nothing is lost on the way; whatever else can be
opened (pages, DICOM, other formats) goes as PNG. Our own server gets everything exactly: videos as videos, no bounds.
"""

from __future__ import annotations

import base64
import io
import logging
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from eval.backends.base import Messages
from eval.backends.open_media import Clip, items_of, open_media
from vlm.chat import VIDEO_OPTIONS
from vlm.prompt_documents import expand_documents
from vlm.prompt_volumes import expand_volumes
from vlm.rgb import ORIENTATION

logger = logging.getLogger(__name__)

MAX_PIXELS = 16_000_000  # a larger picture is reduced to this
MAX_BYTES = 12 << 20  # a larger file is written again as JPEG; base64 adds a third
MAX_VIDEO_BYTES = 128 << 20  # a larger video file is opened here, and its frames are sent
FRAME_QUALITY = 95
_KEPT = {"JPEG": "image/jpeg", "PNG": "image/png"}
_SHOWN = {"image_url": "<image>", "video_url": "<video>"}


def to_openai(
    messages: Messages, video: Mapping[str, Any], exact: bool = False
) -> tuple[Messages, list[tuple[int, int]]]:
    """(messages in OpenAI's form, (width, height) of every picture in them).

    Messages without media have plain strings as content, which every server takes.

    Args:
        video: max_frames and fps, where an item does not say otherwise and its video is opened here.
        exact: In the form of `radio-vlm serve`, whose answers then equal those of its model in this process.

    Raises SampleError for media that cannot be read.
    """
    sizes: list[tuple[int, int]] = []
    sent = []
    for message in expand_volumes(expand_documents(messages)):
        parts: list[dict[str, Any]] = []
        for item in items_of(message):
            parts += _parts(item, video, exact, sizes)
        parts = _joined(parts)
        plain = all(part["type"] == "text" for part in parts)
        content = "".join(part["text"] for part in parts) if plain else parts
        sent.append({"role": message["role"], "content": content})
    return sent, sizes


def shown(messages: Messages) -> str:
    """OpenAI messages in one readable text, pictures as `<image>`, videos as `<video>`."""
    lines = []
    for message in messages:
        parts = message["content"]
        words = parts if isinstance(parts, str) else "".join(p.get("text", _SHOWN.get(p["type"])) for p in parts)
        lines.append(f"{message['role']}: {words}")
    return "\n".join(lines)


def payload_bytes(messages: Messages) -> int:
    """Characters of all data URLs in OpenAI messages: what waits in memory."""
    contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
    parts = [part for content in contents for part in content if part["type"] in _SHOWN]
    return sum(len(part[part["type"]]["url"]) for part in parts)


def _parts(
    item: dict[str, Any], video: Mapping[str, Any], exact: bool, sizes: list[tuple[int, int]]
) -> list[dict[str, Any]]:
    source = item.get(item["type"])
    file = Path(source) if isinstance(source, (str, Path)) and Path(source).is_file() else None
    if item["type"] == "image" and file and (kept := _as_it_is(file, exact)):
        sizes.append(kept[1])
        return [_image(kept[0])]
    if item["type"] == "video" and file and exact and 0 < file.stat().st_size <= MAX_VIDEO_BYTES:
        return [_video_file(file, item)]
    [opened] = open_media([{"role": "user", "content": [item]}], video)
    [item] = opened["content"]
    if item["type"] == "text":
        return [item]
    if item["type"] == "image":
        return [_image(_written(item["image"], "PNG", sizes, exact))]
    clip: Clip = item["video"]
    if exact:
        return [_video_frames(clip, sizes)]
    parts = []
    for label, frame in zip(clip.labels(), clip.frames):
        parts += [{"type": "text", "text": label}, _image(_written(frame, "JPEG", sizes))]
    return [*parts, {"type": "text", "text": "\n"}]


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _video_file(path: Path, item: dict[str, Any]) -> dict[str, Any]:
    """A video to be sampled by the server, as the item says or else as its processor does."""
    url = _url(mimetypes.guess_type(path.name)[0] or "video/mp4", path.read_bytes())
    own = {name: item[name] for name in VIDEO_OPTIONS if item.get(name) is not None}
    return {"type": "video_url", "video_url": {"url": url}, **own}


def _video_frames(clip: Clip, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """Frames that are one video: without loss, with their times, and all of them whatever the processor's limit."""
    frames = ",".join(_written(frame, "PNG", sizes, exact=True).partition(",")[2] for frame in clip.frames)
    times = {} if clip.timestamps is None else {"timestamps": clip.timestamps}
    url = f"data:video/png;base64,{frames}"
    return {"type": "video_url", "video_url": {"url": url}, **times, "max_frames": len(clip.frames)}


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring texts as one, since servers differ in what they write between them."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        if joined and part["type"] == joined[-1]["type"] == "text":
            joined[-1] = {"type": "text", "text": joined[-1]["text"] + part["text"]}
        else:
            joined.append(part)
    return joined


def _as_it_is(path: Path, exact: bool) -> tuple[str, tuple[int, int]] | None:
    """(data URL, size) of a JPEG or PNG file that every server shows upright and whole; None for any other file."""
    if path.stat().st_size > MAX_BYTES and not exact:
        return None
    try:
        with Image.open(path) as image:
            upright = image.getexif().get(ORIENTATION, 1) == 1
            plain = image.mode in ("RGB", "L") and "transparency" not in image.info
            large = image.width * image.height > MAX_PIXELS and not exact
            if image.format not in _KEPT or not upright or not plain or large:
                return None
            image.load()  # a torn file is to be refused here, by name, and not by a server
            return _url(_KEPT[image.format], path.read_bytes()), image.size
    except Exception:  # our reader says in its own words what is wrong with it
        return None


def _written(image: Image.Image, kind: str, sizes: list[tuple[int, int]], exact: bool = False) -> str:
    """The data URL of an RGB image, reduced to the bounds unless it must stay `exact`."""
    if (pixels := image.width * image.height) > MAX_PIXELS and not exact:
        scale = (MAX_PIXELS / pixels) ** 0.5
        size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
        logger.warning("a picture of %d x %d pixels is sent as one of %d x %d", *image.size, *size)
        image = image.resize(size, Image.Resampling.LANCZOS)
    sizes.append(image.size)
    content = _encoded(image, kind)
    if len(content) > MAX_BYTES and kind == "PNG" and not exact:
        kind, content = "JPEG", _encoded(image, "JPEG")
    return _url(_KEPT[kind], content)


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": FRAME_QUALITY} if kind == "JPEG" else {}))
    return stream.getvalue()


def _url(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
