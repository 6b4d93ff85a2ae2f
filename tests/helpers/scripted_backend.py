"""A backend that answers from a script by sample id, having really opened every medium it was shown.

For tests of benchmarks: what is shown and how it is scored is under test, not a model.
"""

from __future__ import annotations

from collections.abc import Callable

from eval.backends.base import Backend, Batch, Decoding, Encoded, Messages, Reply
from eval.data import media_items


class ScriptedBackend(Backend):
    """`answer(sample id) -> text`; `seen` keeps the conversations by sample id (the last one under a control)."""

    name = "scripted"

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.seen: dict[str, Messages] = {}

    def encode(self, messages: Messages, sample_id: str) -> Encoded:
        for item in media_items(messages):
            _open(item)
        self.seen[sample_id] = messages
        return Encoded(data=sample_id, length=1 + len(str(messages)))

    def generate(self, batch: list[Encoded], decoding: Decoding) -> Batch:
        return Batch([Reply(text=decoding.cut(self.answer(one.data))[0], tokens=1, stopped=True) for one in batch])

    def describe(self) -> dict:
        return {"class": "ScriptedBackend", "fingerprint": "scripted"}


def _open(item: dict) -> None:
    kind = item["type"]
    if kind == "image":
        from PIL import Image

        picture = item["image"]
        if isinstance(picture, Image.Image):  # a frame that the task itself has taken out of a video
            return
        with Image.open(picture) as opened:
            opened.load()
    elif kind == "document":
        from vlm.prompt_documents import expand_documents

        expand_documents([{"role": "user", "content": [item]}])
    else:
        with open(item[kind], "rb") as file:
            file.read(1)
