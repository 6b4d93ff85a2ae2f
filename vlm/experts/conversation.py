"""Messages of a conversation with experts: its images, the turn that offers cards, the turn that brings a result.

Training data is made with the same functions as `chat` and the evaluation, so that what is measured is what was
trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.experts.protocol import ExpertCard, card_block

Message = dict[str, Any]
Messages = list[Message]
IMAGES = ("image", "image_url", "volume")
SOURCES = ("source", "image", "volume", "url", "path")  # keys under which an item may hold its file


def text_of(message: Message) -> str:
    """The text of one message, media left out."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(item["text"] for item in content if item["type"] == "text")


@dataclass(frozen=True)
class ImageRef:
    """An image of a conversation that lies in a file: its number among all images, from 1, and what is said of it."""

    number: int
    path: Path
    modality: str | None = None


def image_refs(messages: Messages) -> list[ImageRef]:
    """The images and volumes of a conversation that lie in files or folders, each file once: where it comes last.

    An item may say `"modality"` for a file whose header is silent (NIfTI, PNG), and `"source"`: the file or folder
    that an in-memory picture was taken from, e.g. the volume of a slice.
    """
    found: dict[Path, ImageRef] = {}
    number = 0
    for message in messages:
        for item in message["content"] if not isinstance(message["content"], str) else ():
            if not isinstance(item, dict) or item.get("type") not in IMAGES:
                continue
            number += 1
            source = next((item[key] for key in SOURCES if item.get(key) is not None), None)
            if isinstance(source, str) and (source.startswith("data:") or "://" in source):
                continue
            if isinstance(source, str | Path) and str(source):
                stated = item.get("modality")
                found.pop(Path(source), None)
                found[Path(source)] = ImageRef(number, Path(source), str(stated).strip() if stated else None)
    return list(found.values())


def image_file(messages: Messages) -> Path | None:
    """The file of the last image of a conversation; None when there is none or it is held in memory."""
    refs = image_refs(messages)
    return refs[-1].path if refs else None


def offer_cards(messages: Messages, cards: Sequence[ExpertCard], note: str = "") -> Messages:
    """A copy of `messages` whose first user turn starts with the cards; unchanged when `cards` is empty.

    note: a line below the cards, e.g. on which of several images they go.
    """
    block = card_block(cards)
    if not block:
        return [dict(message) for message in messages]
    block = f"{block}{note}\n" if note else block
    out, done = [], False
    for message in messages:
        if message["role"] == "user" and not done:
            content = message["content"]
            items = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
            message, done = {**message, "content": [{"type": "text", "text": block}, *items]}, True
        out.append(dict(message))
    return out


def result_turn(text: str, question: str, overlay: Any | None = None) -> Message:
    """The user turn that brings an expert's answer (or an error) back, with the question once more after it.

    overlay: an image (whatever an image item may hold) that stands before the text.
    """
    image = [] if overlay is None else [{"type": "image", "image": overlay}]
    return {"role": "user", "content": [*image, {"type": "text", "text": f"{text}\n{question}"}]}


def reply_turn(text: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
