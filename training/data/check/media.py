"""Opens one medium of a sample as far as the level asks: its header and its end, or every pixel as training will.

A doubt about the end of a file is settled by decoding it, so both levels refuse only what training refuses; from
headers alone a picture that is damaged in its middle passes.
"""

import hashlib
import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from training.data.check.fingerprint import fingerprint
from training.data.check.trailers import has_end
from vlm.errors import SampleError
from vlm.media import load_image, load_video
from vlm.media.image import MAX_PIXELS, as_file, existing_file, is_dicom, open_picture, read_head
from vlm.media.pdf import is_pdf
from vlm.media.sizes import image_size
from vlm.rgb import to_rgb

LEVELS = ("headers", "full")
CHECK_FRAMES = 8  # of a video, at level "full"; one at level "headers"
REMEMBERED = 1 << 15  # media; a picture of many questions is opened once
# Pixels at least to which the JPEG decoder shrinks for a fingerprint. At 128 a copy of two thirds the size differs in
# up to 20 bits instead of 10 (measured on scanned receipts) and is lost; that would save a tenth of the time.
DRAFT = (256, 256)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of an image. `key`: 63 bits of its path or bytes (of a volume: its voxels); sizes in pixels,
    upright."""

    key: int
    width: int
    height: int
    fingerprint: bytes | None = None


class MediaCheck:
    """`check(item, value)` -> the pictures an item shows; raises SampleError when it is bad.

    Args:
        level: One of LEVELS.
        fingerprints: Also decode pictures (JPEG at a fraction of their size) for their fingerprints.
    """

    def __init__(self, level: str = "headers", fingerprints: bool = False) -> None:
        if level not in LEVELS:
            raise ValueError(f"level {level!r} is not one of {', '.join(LEVELS)}")
        self.level, self.fingerprints = level, fingerprints
        self._known: OrderedDict[tuple, list[Picture] | SampleError] = OrderedDict()

    def __call__(self, item: dict[str, Any], value: Any) -> list[Picture]:
        """`item`: a content item; `value`: its medium, resolved: an absolute path, bytes, or an object in memory."""
        key = medium_key(item, value)
        if key is None or key not in self._known:
            try:
                found = self._open(item, value, 0 if key is None else key[0])
            except SampleError as error:
                found = error
            except (MemoryError, ImportError):  # too little memory, or a package is missing: not the file's fault
                raise
            except Exception as error:  # one odd file must not end the check, as it does not end a run
                path = value if isinstance(value, str) else None
                found = SampleError(f"{type(error).__name__}: {error}", path=path, reason="unexpected")
            if key is None:
                return _result(found)
            self._known[key] = found
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return _result(self._known[key])

    def _open(self, item: dict[str, Any], value: Any, key: int) -> list[Picture]:
        kind = item["type"]
        if kind == "image":
            return [self._image(value, key)]
        if kind == "volume":
            return [self._volume({**item, kind: value})]
        if kind == "video":
            if isinstance(value, (str, bytes)):
                between = {name: item[name] for name in ("start", "end") if item.get(name) is not None}
                load_video(value, max_frames=CHECK_FRAMES if self.level == "full" else 1, **between)
            return []
        self._document(item, value)
        return []

    def _image(self, value: Any, key: int) -> Picture:
        if isinstance(value, (str, bytes)) and self.level == "headers" and (header := self._header(value)) is not None:
            with header:
                height, width = image_size(value)
                return Picture(key, width, height, fingerprint(_draft(header, value)) if self.fingerprints else None)
        image = load_image(value)
        if not isinstance(value, (str, bytes)):
            key = _hash(image.tobytes())
        return Picture(key, image.width, image.height, fingerprint(image) if self.fingerprints else None)

    def _volume(self, item: dict[str, Any]) -> Picture:
        """The slice in the middle of what a volume shows. It is read at every level: what its slices hold decides which
        are shown. Two copies of the same voxels are one file, whatever they are called."""
        from vlm.media.volume_items import item_pictures, item_volumes
        from vlm.prompt_volumes import checked_item

        item = {name: one for name, one in checked_item(item).items() if name != "max_tokens"}  # the model's to count
        volumes, digest = item_volumes(item), hashlib.blake2b(digest_size=8)
        _, pictures = item_pictures(item, volumes=volumes)[0]
        image = pictures[len(pictures) // 2][1]
        for volume in volumes:
            digest.update(f"{volume.array.shape} {(volume.affine.round(3) + 0.0).tolist()}".encode())
            digest.update(np.ascontiguousarray(volume.array).data)
        key = int.from_bytes(digest.digest(), "little") >> 1
        return Picture(key, image.width, image.height, fingerprint(image) if self.fingerprints else None)

    def _header(self, value: str | bytes) -> Image.Image | None:
        """The opened picture, not decoded; None when it has to be decoded to be judged: a medical or a vector format,
        a file whose end is missing or cannot be told."""
        if isinstance(value, str):
            existing_file(value, "image")
        if not value or is_dicom(value) or is_pdf(read_head(value)):
            return None
        image = open_picture(as_file(value), value if isinstance(value, str) else None)
        if image.width * image.height <= MAX_PIXELS:  # else load_image refuses it without decoding
            with io.BytesIO(value) if isinstance(value, bytes) else open(value, "rb") as file:
                if has_end(file, image):
                    return image
        image.close()
        return None

    def _document(self, item: dict[str, Any], value: Any) -> None:
        from vlm.prompt_documents import expand_documents

        (message,) = expand_documents([{"role": "user", "content": [{**item, "document": value}]}])
        for part in message["content"]:
            if part["type"] == "image":
                part["image"].open() if self.level == "full" else part["image"].size()


def shown_slices(item: dict[str, Any], processor: Any = None) -> list[Image.Image]:
    """The pictures of a volume item, its medium resolved; within its `max_tokens` where there is a processor."""
    from vlm.media.volume_items import item_pictures

    item = {name: one for name, one in item.items() if one is not None and (processor or name != "max_tokens")}
    counter = getattr(processor, "num_image_tokens", None)
    return [picture for _, pictures in item_pictures(item, counter) for _, picture in pictures]


def _draft(image: Image.Image, value: str | bytes) -> Image.Image:
    """The picture decoded for a fingerprint; a JPEG at the smallest size its decoder offers. Raises SampleError."""
    try:
        image.draft("L", DRAFT)
        return to_rgb(image)
    except Exception:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error, ...
        return load_image(value)  # which says it in its own words


def _result(found: list[Picture] | SampleError) -> list[Picture]:
    if isinstance(found, SampleError):
        raise found
    return found


def medium_key(item: dict[str, Any], value: Any) -> tuple | None:
    """What a medium is remembered under: (63 bits of path or bytes, kind, options); None for objects in memory."""
    if not isinstance(value, (str, bytes, dict)):
        return None
    options = {key: item[key] for key in item if key not in ("type", item["type"])}
    value = repr(value) if isinstance(value, dict) else value  # the channels of an MRI
    data = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    return _hash(data), item["type"], repr(options)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1
