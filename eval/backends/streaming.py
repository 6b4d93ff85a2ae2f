"""The words of one answer as they are written, for a server: what was handed on is never taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from eval.backends.base import Decoding


class TextStream:
    """A streamer for transformers' `generate` with one prompt.

    Held back until it is certain: a character that is not whole yet, space that may be the end of the answer, and what
    may become a stop string. The pieces make up the beginning of the reply's text; `rest` gives what is missing of it.
    """

    def __init__(self, backend: Any, decoding: Decoding, emit: Callable[[str], None]) -> None:
        """`backend`: one with `decode` and `stop_ids`. `emit`: takes each piece; what it raises ends generation."""
        self.backend, self.decoding, self.emit = backend, decoding, emit
        self._ids: list[int] = []
        self._sent = ""
        self._ended = False

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate` with the prompt (1, L), then with every token (1,)."""
        if value.dim() > 1 or self._ended:
            return
        for token in value.tolist():
            if token in self.backend.stop_ids:
                self._ended = True
                return
            self._ids.append(token)
        text, self._ended = self.decoding.cut(self.backend.decode(self._ids))
        if not self._ended:
            text = text[: len(text) - self._uncertain(text)]
        self._hand_on(text.strip())

    def end(self) -> None:
        """Called by `generate` at its end; `rest` does the work, once the reply is known."""

    def rest(self, text: str) -> None:
        """Hands on what `text`, the whole answer, has beyond the pieces so far."""
        self._hand_on(text)

    def _hand_on(self, text: str) -> None:
        if text.startswith(self._sent) and text != self._sent:
            piece, self._sent = text[len(self._sent) :], text
            self.emit(piece)

    def _uncertain(self, text: str) -> int:
        """How many characters at the end may still change or be cut off."""
        unfinished = len(text) - len(text.rstrip("\ufffd"))
        lengths = [
            length
            for stop in self.decoding.stop
            for length in range(1, min(len(stop), len(text) + 1))
            if text.endswith(stop[:length])
        ]
        return max([unfinished, *lengths])
