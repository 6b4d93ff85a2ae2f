"""Runs experts over images through an `ExpertSession`, and keeps each result on disk: nothing is run twice.

The session is the one of chat and evaluation, so time limits, size bounds, checks and the wording of errors are theirs.
A result is kept as JSON (text and findings, no mask, no pickle) under the image's content, the expert, its arguments,
its own code and its weights. A refusal (`missing: t1, t2`) is a result; a crash or a time-out is tried again next time.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.data.expert_dialogues.labelled_set import LabelledImage
from training.data.expert_dialogues.pictures import write_whole
from vlm.experts import ExpertCard, ExpertResult, ExpertSession, Trigger, get_expert
from vlm.experts.body_part import card_fits
from vlm.experts.image_facts import image_facts
from vlm.experts.private_text import without_identifiers
from vlm.experts.topics import calls_of
from vlm.experts.weights import weights_digest

MAX_NUMBERS = 1000  # arrays in findings that are longer are data, not findings


@dataclass(frozen=True)
class Found:
    """What came back of one call. `drawn`: whether there was a mask; `kept`: whether it was known already."""

    expert: str
    arguments: tuple[str, ...]
    ok: bool
    text: str
    findings: dict[str, Any] = field(default_factory=dict)
    drawn: bool = False
    seconds: float = 0.0
    kept: bool = False

    @property
    def trigger(self) -> str:
        """The call as a model writes it."""
        return str(Trigger(self.expert, self.arguments))

    @property
    def result(self) -> ExpertResult:
        """The result without its mask."""
        return ExpertResult(self.text, None, self.findings)


class ExpertRuns:
    """Experts by name, with results kept below `cache`. `versions`: see `expert_version`."""

    def __init__(self, cache: Path, versions: Mapping[str, str], weights: Path | None = None) -> None:
        self.cache, self.versions = cache, versions
        self.session = ExpertSession(list(versions), max_calls=1, weights=weights)

    def close(self) -> None:
        """Let go of the experts."""
        self.session.close()

    def fitting(self, modality: str | None, body_part: str | None) -> list[ExpertCard]:
        """Cards of the experts that read this modality and this body part."""
        return [card for card in self.session.cards.values() if card_fits(card, modality, body_part)]

    def run(self, image: LabelledImage, digest: str, modality: str | None) -> list[Found]:
        """Results of all calls that the image's topics need, by all experts that fit."""
        labels = tuple(image.labels)
        return [
            self.call(image, digest, card.name, arguments)
            for card in self.fitting(modality, image_facts(image.path).body_part)
            for arguments in calls_of(get_expert(card.name), labels)
        ]

    def call(self, image: LabelledImage, digest: str, name: str, arguments: tuple[str, ...]) -> Found:
        """One result, from the disk where it is there."""
        words = json.dumps([name, arguments, self.versions[name], image.modality, image.kind])
        key = hashlib.sha256(words.encode()).hexdigest()[:16]
        file = self.cache / digest / f"{name}-{key}.json"
        if file.is_file():
            row = json.loads(file.read_text(encoding="utf-8"))
            return Found(name, arguments, row["ok"], row["text"], as_findings(row["findings"]), row["drawn"],
                         row["seconds"], True)  # fmt: skip
        stated = {"modality": image.modality} if image.modality else {}
        content = [{"type": image.kind, image.kind: str(image.path), **stated}, {"type": "text", "text": "?"}]
        replies = iter((str(Trigger(name, arguments)), ""))
        transcript = self.session.run(lambda _: [next(replies)], [{"role": "user", "content": content}])
        call = transcript.calls[0]
        facts = image_facts(image.path)
        clean = functools.partial(without_identifiers, path=image.path, identifiers=facts.identifiers)
        findings = plain(call.result.findings, clean) if call.ok else {}
        drawn = call.ok and call.result.mask is not None
        row = {"ok": call.ok, "text": call.text, "findings": findings, "drawn": drawn}
        row["seconds"] = round(call.expert_seconds, 4)
        if call.ok or is_refusal(name, call.text):
            write_whole(file, json.dumps(row, ensure_ascii=False, allow_nan=False).encode())
        return Found(name, arguments, call.ok, call.text, as_findings(findings), drawn, row["seconds"])


def is_refusal(name: str, text: str) -> bool:
    """Whether an error is the expert's own word on the image, and no crash, time-out or lack of weights."""
    passing = ("failed", "did not answer", "is still busy", "is not available", "cannot be used here")
    return not text.startswith(tuple(f"error: {name} {words}" for words in passing))


def expert_version(name: str, weights: Path | None = None) -> str:
    """What makes an expert another one: its code (its file, and what that uses of its package), and its weights."""
    expert = get_expert(name)
    digest = hashlib.sha256()
    digest.update(expert.__qualname__.encode())
    for file in code_of(expert.__module__):
        digest.update(file.read_bytes())
    digest.update(str(weights_digest(expert, weights)).encode())
    return digest.hexdigest()[:20]


def code_of(module: str) -> list[Path]:
    """The file of a module and those of its package that names in it come from, and so on; none made in a console."""
    package, found, open_ = module.rpartition(".")[0], {}, [module]
    while open_:
        name = open_.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in found or file is None:
            continue
        found[name] = Path(file)
        used = {getattr(one, "__module__", None) for one in vars(sys.modules[name]).values()}
        open_ += [one for one in used if isinstance(one, str) and package and one.startswith(f"{package}.")]
    return [found[name] for name in sorted(found) if found[name].is_file()]


def plain(value: Any, clean: Callable[[str], str] = str) -> Any:
    """Findings as JSON can hold them; what it cannot, and long arrays, become None. Every text goes through `clean`."""
    if isinstance(value, dict):
        return {clean(str(key)): plain(one, clean) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), clean) if value.size <= MAX_NUMBERS else None
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [plain(one, clean) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, str):
        return clean(value)
    return value if isinstance(value, int | bool) else None


def as_findings(read: dict[str, Any]) -> dict[str, Any]:
    """Findings read from JSON, whose keys are text: the labels of a mask are numbers again."""
    labels = read.get("labels")
    if isinstance(labels, dict):
        labels = {int(key) if key.lstrip("-").isdigit() else key: name for key, name in labels.items()}
        return read | {"labels": labels}
    return read
