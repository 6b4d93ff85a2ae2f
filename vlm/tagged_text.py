"""The plain call `processor(text=..., images=...)`: tags in the text are matched with the media given.

Here `<image>` is a tag by intent (the caller wrote the whole prompt); one too many or too few is an error, because
every other answer would shift all later images by one.
"""

import re

from vlm.chat import MEDIA, SENTINEL, MediaItem
from vlm.errors import SampleError
from vlm.image_processing_radio_vlm import flat_images


def split_tags(
    texts: list[str], images, videos, timestamps: list | None, tokens: dict[str, str]
) -> list[tuple[str, list[MediaItem]]]:
    """Texts with tags -> for each, the text with media sentinels and its media in order of appearance.

    A tag may already stand in its wrapper (`<img><image></img>`); the wrapper is not doubled.
    """
    start, end = re.escape(tokens["image_start"]), re.escape(tokens["image_end"])
    tag = "|".join(re.escape(tokens[kind]) for kind in ("image", "video"))
    pattern = re.compile(f"{start}({tag}){end}|({tag})")
    found = [[m[1] or m[2] for m in pattern.finditer(text)] for text in texts]
    counts = {kind: [tags.count(tokens[kind]) for tags in found] for kind in ("image", "video")}
    pools = {
        "image": _deal(images, counts["image"], "image", flat_images),
        "video": _deal(videos, counts["video"], "video", _flat_videos),
    }
    times = iter(timestamps or [])
    out = []
    for row, text in enumerate(texts):
        if SENTINEL.search(text):
            raise SampleError("the text contains private-use characters (planes 15 or 16)", reason="bad_message")
        pool = {kind: iter(pools[kind][row]) for kind in pools}
        media = []
        for name in found[row]:
            kind = "image" if name == tokens["image"] else "video"
            media.append(MediaItem(kind, next(pool[kind]), next(times, None) if kind == "video" else None))
        numbers = iter(range(len(media)))
        out.append((pattern.sub(lambda m, n=numbers: chr(MEDIA + next(n)), text), media))
    return out


def _deal(media, counts: list[int], kind: str, flat) -> list[list]:
    """Media for each text: nested lists are taken row by row, anything else is dealt out in order."""
    if media is None:
        media = []
    nested = isinstance(media, (list, tuple)) and len(media) == len(counts) and _is_nested(media, kind)
    rows = [flat(row) if row is not None else [] for row in media] if nested else None
    if rows is None:
        pool = flat(media)
        if len(pool) == sum(counts):
            ends = [sum(counts[: i + 1]) for i in range(len(counts))]
            rows = [pool[stop - count : stop] for stop, count in zip(ends, counts)]
        else:
            raise SampleError(
                f"{sum(counts)} <{kind}> tags in the text but {len(pool)} {kind}s were given", reason="tag_mismatch"
            )
    for row, (have, want) in enumerate(zip(rows, counts)):
        if len(have) != want:
            raise SampleError(
                f"text {row}: {want} <{kind}> tags but {len(have)} {kind}s were given", reason="tag_mismatch"
            )
    return rows


def _is_nested(media, kind: str) -> bool:
    if kind == "image":
        return all(row is None or isinstance(row, (list, tuple)) for row in media)
    # a list of frames is one video, so a row of videos is a list of paths, of lists or of 4-D tensors
    return all(row is None or (isinstance(row, (list, tuple)) and all(map(_is_video, row))) for row in media)


def _is_video(x) -> bool:
    return isinstance(x, (list, tuple)) or getattr(x, "ndim", 0) == 4 or hasattr(x, "timestamps") or _is_path(x)


def _is_path(x) -> bool:
    return isinstance(x, str) or hasattr(x, "__fspath__")


def _flat_videos(videos) -> list:
    """One video or a list of videos -> a list of videos; a list of frames (images) is one video."""
    if getattr(videos, "ndim", 0) == 5:
        return list(videos)
    if getattr(videos, "ndim", 0) == 4 or _is_path(videos) or hasattr(videos, "timestamps"):
        return [videos]
    videos = list(videos)
    return videos if all(map(_is_video, videos)) else [videos]
