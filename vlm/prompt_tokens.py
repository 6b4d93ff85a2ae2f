"""A rendered prompt becomes token ids, token types and the label mask.

Ordinary text is tokenised in as few calls as possible, exactly as the tokenizer would on its own; media enter as one
placeholder each and are multiplied as ids, so a thousand image tokens cost nothing; a literal control string is
tokenised in pieces that cannot form the token.
"""

import math
from dataclasses import dataclass, field

from vlm.chat import LITERAL, MEDIA, SENTINEL

IMAGE_TYPE, VIDEO_TYPE = 1, 2


@dataclass
class MediaPrompt:
    """What stands in the prompt for one media item.

    Attributes:
        text: With one placeholder token for each entry of `counts`, e.g. "<img><image></img>".
        counts: How many placeholders each of them becomes.
        token_id: Id of the placeholder.
        token_type: 1 image, 2 video.
    """

    text: str
    counts: list[int]
    token_id: int
    token_type: int


@dataclass
class _Run:
    """A stretch of text tokenised in one call; `spans` are labelled character ranges within it."""

    text: str
    is_literal: bool = False
    spans: list[tuple[int, int]] = field(default_factory=list)


class TextEncoder:
    """Text -> ids without special tokens added, padding or truncation.

    Fast tokenizers are called at their backend (a third of the time of `tokenizer(...)`), slow ones as they are.
    """

    def __init__(self, tokenizer, control: set[str]):
        self.tokenizer = tokenizer
        self.control = control
        self.backend = getattr(tokenizer, "backend_tokenizer", None)
        # SentencePiece-like tokenizers put a space before every string they are given, so also before a piece in the
        # middle of a text; such pieces are encoded behind a newline, which is then taken off again.
        self._newline = self.encode("\n")
        self._adds_prefix = self.encode("\na") != self._newline + self.encode("a")
        self._literals: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        return self._backend_encoding(text).ids if self.backend is not None else self._slow(text)

    def _slow(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]

    def _backend_encoding(self, text: str):
        backend = self.backend
        # Earlier calls of the tokenizer leave their padding, truncation and splitting set in the backend.
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        if backend.encode_special_tokens:
            backend.encode_special_tokens = False
        return backend.encode(text, add_special_tokens=False)

    def affixes(self) -> tuple[list[int], list[int]]:
        """What this tokenizer puts before and behind a text by itself (bos, eos); learned from one example."""
        bare, full = self.encode("a"), self.tokenizer("a", add_special_tokens=True)["input_ids"]
        for at in range(len(full) - len(bare) + 1):
            if full[at : at + len(bare)] == bare:
                return full[:at], full[at + len(bare) :]
        return [], []

    def encode_inner(self, text: str) -> list[int]:
        """Ids of a text that stands behind other text."""
        if self._adds_prefix:
            ids = self.encode("\n" + text)
            if ids[: len(self._newline)] == self._newline:
                return ids[len(self._newline) :]
        return self.encode(text)

    def encode_literal(self, text: str) -> list[int]:
        """Ids of a control string as ordinary text: cut after its first character so that no token can match."""
        ids = self._literals.get(text)
        if ids is None:
            ids, rest = [], text
            while any(token in rest for token in self.control):
                ids += self.encode_inner(rest[0])
                rest = rest[1:]
            ids = self._literals[text] = ids + (self.encode_inner(rest) if rest else [])
        return ids

    def encode_run(self, text: str, spans: list[tuple[int, int]], is_first: bool) -> tuple[list[int], list[bool]]:
        """Ids and, for each, whether it lies in one of `spans`.

        One joint call; only when a token straddles the start of a span is the text cut there, as it is at inference,
        where the model continues behind the header.
        """
        if not spans:
            ids = self.encode(text) if is_first else self.encode_inner(text)
            return ids, [False] * len(ids)
        if self.backend is None or (self._adds_prefix and not is_first):
            return self._encode_cut(text, spans, [p for span in spans for p in span], is_first)
        encoding = self._backend_encoding(text)
        ids, flags, straddled, reached = encoding.ids, [], [], 0
        ahead = iter([*spans, (math.inf, math.inf)])
        start, end = next(ahead)
        for low, high in encoding.offsets:
            # Some tokenizers trim spaces off their offsets: a token owns everything since the one before it. Bytes of
            # one character share its offsets.
            first = low if low < reached else reached
            reached = high if high > reached else reached
            while first >= end:
                start, end = next(ahead)
            flags.append(start <= first)
            if first < start < high:
                straddled.append(start)
        if straddled:
            return self._encode_cut(text, spans, straddled, is_first)
        return ids, flags

    def _encode_cut(
        self, text: str, spans: list[tuple[int, int]], cuts: list[int], is_first: bool
    ) -> tuple[list[int], list[bool]]:
        ids, flags = [], []
        edges = sorted({0, len(text), *cuts})
        for low, high in zip(edges, edges[1:]):
            inner = [(max(s, low) - low, min(e, high) - low) for s, e in spans if s < high and e > low]
            if self.backend is None or inner == [(0, high - low)] or not inner:
                part = self.encode_inner(text[low:high]) if ids or not is_first else self.encode(text[low:high])
                ids += part
                flags += [bool(inner)] * len(part)
            else:
                part, inside = self.encode_run(text[low:high], inner, is_first and low == 0)
                ids += part
                flags += inside
        return ids, flags


def lay_out(
    text: str,
    spans: list[tuple[int, int]] | None,
    literals: list[str],
    prompts: list[MediaPrompt],
    encoder: TextEncoder,
) -> tuple[list[int], list[int], list[int]]:
    """A rendered prompt with sentinels -> (input_ids, mm_token_type_ids, labels), labels -100 outside `spans`."""
    ids, types, labels = [], [], []
    pending = [(prompt, count) for prompt in prompts for count in prompt.counts]
    placeholder_ids = {prompt.token_id for prompt in prompts}
    used = 0
    for number, run in enumerate(_runs(text, spans or [], literals, prompts)):
        if run.is_literal:
            part = encoder.encode_literal(run.text)
            flags = [bool(run.spans)] * len(part)
        else:
            part, flags = encoder.encode_run(run.text, run.spans, number == 0)
        if placeholder_ids.isdisjoint(part) or run.is_literal:
            ids += part
            types += [0] * len(part)
            labels += [token if flag else -100 for token, flag in zip(part, flags)]
            continue
        for token, flag in zip(part, flags):
            if token in placeholder_ids:
                prompt, count = pending[used]
                used += 1
                ids += [prompt.token_id] * count
                types += [prompt.token_type] * count
                labels += [-100] * count
            else:
                ids.append(token)
                types.append(0)
                labels.append(token if flag else -100)
    if used != len(pending):
        raise RuntimeError(f"{len(pending)} media placeholders were written but {used} came back from the tokenizer")
    return ids, types, labels


def _runs(text: str, spans: list[tuple[int, int]], literals: list[str], prompts: list[MediaPrompt]) -> list[_Run]:
    """Cuts at literals only; media prompts are written into the running text. Spans move along."""
    runs, current, position = [], _Run(""), 0

    def mark(run: _Run, low: int, high: int, offset: int) -> None:
        """Label in `run` what `spans` covers of text[low:high], which stands at `offset` there."""
        for start, end in spans:
            start, end = max(start, low), min(end, high)
            if start < end:
                piece = (start - low + offset, end - low + offset)
                if run.spans and run.spans[-1][1] == piece[0]:
                    piece = (run.spans.pop()[0], piece[1])
                run.spans.append(piece)

    for match in SENTINEL.finditer(text):
        low = match.start()
        mark(current, position, low, len(current.text))
        current.text += text[position:low]
        position = match.end()
        code = ord(match[0])
        if code >= MEDIA:
            current.text += prompts[code - MEDIA].text
            continue
        literal = _Run(literals[code - LITERAL], is_literal=True)
        mark(literal, low, position, 0)
        runs += [current, literal]
        current = _Run("")
    mark(current, position, len(text), len(current.text))
    current.text += text[position:]
    return [run for run in (*runs, current) if run.text]
