"""Small pictures of a sample's media, as a person looks at them: images, frames of a video, pages of a document,
slices of a volume."""

import base64
import io
from typing import Any

from PIL import Image

MAX_SIDE = 320
FRAMES = 4
PAGES = 3
SLICES = 3
MOST = 8  # pictures of one sample


def thumbnails(messages: list[dict[str, Any]]) -> list[Image.Image]:
    """At most `MOST` RGB pictures of the media in messages with resolved paths; DICOM comes windowed.

    Raises:
        SampleError: a file that cannot be read.
    """
    pictures: list[Image.Image] = []
    for message in messages:
        for item in message["content"] if isinstance(message["content"], list) else ():
            if item["type"] in READERS and len(pictures) < MOST:
                pictures += READERS[item["type"]](item)
    return [_small(picture) for picture in pictures[:MOST]]


def _image(item: dict) -> list[Image.Image]:
    from vlm.media import load_image

    return [load_image(item["image"])]


def _video(item: dict) -> list[Image.Image]:
    from vlm.media import load_video

    options = {key: item[key] for key in ("start", "end") if item.get(key) is not None}
    clip = load_video(item["video"], FRAMES, **options)
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip.frames]


def _document(item: dict) -> list[Image.Image]:
    from vlm.media.pages import open_document

    options = {key: item[key] for key in ("pages",) if item.get(key) is not None}
    return [page.open() for page in open_document(item["document"], **options)[:PAGES]]


def _volume(item: dict) -> list[Image.Image]:
    from vlm.media.volume_items import item_pictures

    kept = {key: value for key, value in item.items() if value is not None and key not in ("max_tokens", "slices")}
    slices = item["slices"][:SLICES] if isinstance(item.get("slices"), list) else SLICES
    return [picture for _, pictures in item_pictures({**kept, "slices": slices}) for _, picture in pictures]


READERS = {"image": _image, "video": _video, "document": _document, "volume": _volume}


def _small(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return picture


def data_uri(picture: Image.Image) -> str:
    """The picture inside a page; PNG where that is small (drawings), else JPEG."""
    streams = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        streams[kind] = io.BytesIO()
        picture.save(streams[kind], kind.upper(), **options)
    sizes = {kind: len(stream.getvalue()) for kind, stream in streams.items()}
    kind = "png" if sizes["png"] <= 2 * sizes["jpeg"] else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(streams[kind].getvalue()).decode()}"
