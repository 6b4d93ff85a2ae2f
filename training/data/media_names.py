"""Which files are media, by the ends of their names, and how a record is joined with the files that lie beside it."""

import re
from typing import Any

from training.data.records import MEDIA_KEYS

SUFFIXES = {
    "image": ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "dcm"),
    "video": ("mp4", "webm", "mov", "mkv", "avi", "m4v"),
    "document": ("pdf",),
    "volume": ("nii", "nii.gz"),
}
KINDS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
SUFFIX = re.compile(r"\.(nii\.gz|[^./]*)$", re.IGNORECASE)
WORDS = ("messages", "conversations", "texts", "question", "text", "caption")


def kind_of(name: str) -> str | None:
    """image, video, document or volume by the suffix of a file name; None for everything else. (DICOM files count as
    images: whether many are a series is for the record to say.)"""
    found = SUFFIX.search(name)
    return KINDS.get(found[1].lower()) if found else None


def stem_of(name: str) -> str:
    """The name of a file without its suffix: `a/b.nii.gz` -> `a/b`."""
    return SUFFIX.sub("", name)


def lists_media(record: dict[str, Any]) -> bool:
    """Whether a record names media itself, beside its conversation or in it."""
    if any(record.get(key) is not None for keys in MEDIA_KEYS.values() for key in keys):
        return True
    turns = record.get("messages")
    contents = [turn.get("content") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    items = [item for content in contents if isinstance(content, list) for item in content if isinstance(item, dict)]
    return any(len(item) > 1 for item in items if item.get("type") in MEDIA_KEYS)


def with_media(record: dict[str, Any], media: list[tuple[str, Any]]) -> dict[str, Any]:
    """The record with (kind, medium) pairs listed under `images`, `videos`, `documents`, `volumes`."""
    lists = {f"{kind}s": [one for its, one in media if its == kind] for kind in SUFFIXES}
    return {**record, **{key: value for key, value in lists.items() if value}}


def has_words(record: dict[str, Any]) -> bool:
    """Whether a record holds a conversation, a question or a caption."""
    return any(record.get(key) is not None for key in WORDS)
