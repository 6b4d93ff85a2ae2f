"""One record of the plain form `{"image", "question", "options"?, "answer(s)"}`, the shape of most benchmark files.

What looks like an answer or a picture and cannot be one is refused, record by record: scored as it stands it would be a
wrong answer of the model's, in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MEDIA_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".dcm", ".nii", ".nii.gz"),
    *(".mp4", ".mkv", ".avi", ".mov", ".webm", ".pdf"),
)


def question_of(
    record: Mapping[str, Any], media: Mapping[str, Sequence[str]]
) -> tuple[list[dict[str, Any]], list[Any], dict[str, Any]]:
    """(messages of one user turn, gold answers, what metrics must be told).

    Args:
        media: the record's files by kind, as `{"image": ["a.png"]}`.

    Raises ValueError for a record without words or answers, for options that are none, and for a file under a key that
    nothing reads.
    """
    if not str(record["question"] or "").strip():
        raise ValueError("the question is empty")
    answers = record.get("answer") if record.get("answers") is None else record["answers"]
    if answers is None:
        raise ValueError("no answer or answers in the record")
    answers = list(answers) if isinstance(answers, list) else [answers]
    options = options_of(record.get("options"))
    if options:
        if record.get("answer") not in (None, *answers):
            answers.append(record["answer"])  # the letter beside the words: either is right
    if not any(media.values()):
        _check_keys(record)
    words = [str(record["question"]), *(f"{letter}. {text}" for letter, text in zip(LETTERS, options))]
    items = [item_of(kind, listed) for kind, paths in media.items() for listed in paths]
    content = [*items, {"type": "text", "text": "\n".join(words)}]
    return [{"role": "user", "content": content}], answers, {"options": options} if options else {}


def item_of(kind: str, listed: Any) -> dict[str, Any]:
    """A content item from what a record lists: a path, {channel: path}, or an object with the keys of an item."""
    return {**listed, "type": kind} if isinstance(listed, Mapping) and kind in listed else {"type": kind, kind: listed}


def options_of(value: Any) -> list[str]:
    """Texts of the options in order: a list, or a dictionary of letters in alphabetical order from A on.

    Raises ValueError for anything else.
    """
    if value is None or value == []:
        return []
    if isinstance(value, Mapping):
        letters = [str(key).strip().upper() for key in value]
        if "".join(sorted(letters)) != LETTERS[: len(letters)]:
            raise ValueError(f"options have the letters {', '.join(letters)}, expected A, B, C …")
        return [str(text) for _, text in sorted(zip(letters, value.values()))]
    if not isinstance(value, (list, tuple)) or len(value) > len(LETTERS):
        raise ValueError(f"options must be at most {len(LETTERS)} texts, or letters with texts, not {value!r:.60}")
    return [str(text) for text in value]


def _check_keys(record: Mapping[str, Any]) -> None:
    """A picture under another key would be a question asked without its picture."""
    for key, value in record.items():
        if isinstance(value, str) and value.lower().endswith(MEDIA_ENDINGS) and not value.startswith("http"):
            known = "image, video, document and volume (or -s)"
            raise ValueError(f"the key {key!r} holds a media file, but only {known} are read")
