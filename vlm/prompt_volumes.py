"""Volumes in a conversation become labelled slices: a sentence about the volume, then each slice behind its number.

Volumes are opened by `vlm.media` where the package is installed; a checkpoint used on its own takes slices as images.
Nothing of a file's header but modality and geometry gets into the prompt.
"""

from collections.abc import Callable

from vlm.errors import SampleError

KEYS = (
    "type", "volume", "path", "modality", "window", "slices", "axis", "layout", "max_tokens", "size", "series", "frame",
    "labels", "channels",
)  # fmt: skip


def expand_volumes(messages: list[dict], num_tokens: Callable[[int, int], int] | None = None) -> list[dict]:
    """Messages -> messages without `volume` items; the same object when there are none.

    `{"type": "volume", "volume": FOLDER or FILE, "modality": "CT", "window": "lung", "slices": 8, "axis": "axial",
    "layout": "slices" | "neighbours" | "montage", "max_tokens": 2048, "size": 512, "labels": True}` becomes the text
    "CT volume, axial slices ...", and for each slice "Slice 12 of 40:\\n", an image, "\\n". `slices` may be a list of
    slice numbers, from 1. "neighbours" shows the slices beside each as red and blue. With `labels` false: images alone.

    MRI sequences are named channels: `"volume": {"t1": FILE, "flair": FOLDER}`, or a folder of series or a 4D NIfTI
    file with `"channels": ["t1", "flair"]`. Each channel has its sentence, all show the same slices, and `max_tokens`
    is shared.

    Args:
        num_tokens: (height, width) -> tokens of a picture: what `max_tokens` is counted with.

    Raises:
        SampleError: bad_message, no_media, no_volume_reader, those of `vlm.media.volumes.read_volume` and
            `read_channels`, and of `vlm.media.slice_budget.plan_slices`.
    """
    if not isinstance(messages, (list, tuple)) or not any(map(_has_volume, messages)):
        return messages
    return [_expanded(message, num_tokens) if _has_volume(message) else message for message in messages]


def _has_volume(message) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, (list, tuple)) and any(map(_is_volume, content))


def _is_volume(item) -> bool:
    return isinstance(item, dict) and item.get("type") == "volume"


def _expanded(message: dict, num_tokens) -> dict:
    content = []
    for item in message["content"]:
        content += _slice_items(item, num_tokens) if _is_volume(item) else [item]
    return {**message, "content": content}


def checked_item(item: dict) -> dict:
    """A volume item without null keys. Raises SampleError("bad_message") for unknown keys."""
    item = {key: value for key, value in item.items() if value is not None}  # Arrow fills in null keys
    if unknown := sorted(set(item) - set(KEYS)):
        message = f"a volume item has no {', '.join(unknown)}; its keys are {', '.join(KEYS)}"
        raise SampleError(message, reason="bad_message")
    labels = item.get("labels", True)
    if not isinstance(labels, bool):
        raise SampleError(f"labels of a volume are true or false, not {labels!r:.40}", reason="bad_message")
    return item


def _slice_items(item: dict, num_tokens) -> list[dict]:
    """One volume item -> text and image items."""
    item = checked_item(item)
    try:
        from vlm.media.volume_items import item_pictures
    except ImportError as error:
        message = "volumes are read by the radio-vlm package (`import vlm`); here pass the slices as images"
        path = item.get("volume", item.get("path"))
        raise SampleError(message, path=path if isinstance(path, str) else None, reason="no_volume_reader") from error
    items = []
    for words, pictures in item_pictures(item, num_tokens):
        if not item.get("labels", True):
            items += [{"type": "image", "image": picture} for _, picture in pictures]
            continue
        items.append({"type": "text", "text": f"{words}\n"})
        for label, picture in pictures:
            items += [{"type": "text", "text": f"{label}:\n"}, {"type": "image", "image": picture}]
            items.append({"type": "text", "text": "\n"})
    return items
