"""The medical corpus: CT-like DICOM slices with questions on lesions, and on things that need no expert.

Lesion questions (side, size in mm, number) are what the expert `LESIONS` is for; window, table and modality are not.
Training records come in the four forms that a model must tell apart:
- card offered, lesion question: trigger, the expert's result as a user turn, answer (the style of VILA-M3);
- card offered, other question: answer at once, no trigger;
- no card, either question: answer at once from the image.
Validation and test records hold one question and no card: `vlm.experts.ExpertSession` offers it, or withholds it.
Three of four records ask about lesions, in turn side, size and number; the fourth asks about window, table or modality.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.synthetic.folder import generator, write_folder
from training.data.synthetic.medical_text import NEEDS_EXPERT, QUESTIONS, expert_turns, findings_text
from training.data.synthetic.registry import register_corpus
from training.data.synthetic.slices import Slice, random_slice, render, write_dicom
from training.data.synthetic.split_hash import split_of

KINDS = ("side", "size", "number")
OTHER_KINDS = ("window", "table", "modality")


def kinds_of(n: int) -> list[str]:
    """The kind of each of `n` records: three lesion questions, then one that needs no expert."""
    return [KINDS[i % 4] if i % 4 < 3 else OTHER_KINDS[i // 4 % 3] for i in range(n)]


def answer_of(kind: str, item: Slice) -> str:
    """The true answer to a question about a slice."""
    if kind == "side":
        return item.lesions[0].side(item.size)
    if kind == "size":
        return str(item.lesions[0].mm)
    if kind == "number":
        return str(len(item.lesions))
    return {"window": item.window, "table": "yes" if item.table else "no", "modality": "CT"}[kind]


def draw(rng: random.Random, kind: str, size: int) -> Slice:
    """A random slice that a question of `kind` can be asked about (side and size need a lesion)."""
    return random_slice(rng, size, rng.randint(0 if kind not in ("side", "size") else 1, 3))


def messages_of(
    rng: random.Random, split: str, kind: str, item: Slice, file: str, cards: float
) -> list[dict[str, Any]]:
    """The conversation of one record; `cards` is the share of training records in which the expert is offered."""
    image = {"type": "image", "image": file}
    answer = answer_of(kind, item)
    if split == "train" and rng.random() < cards:
        result = None
        if kind in NEEDS_EXPERT:
            largest = (item.lesions[0].side(item.size), item.lesions[0].mm) if item.lesions else None
            result = findings_text(len(item.lesions), largest)
        return expert_turns([image], QUESTIONS[kind], answer, result)
    return [
        {"role": "user", "content": [image, {"type": "text", "text": QUESTIONS[kind]}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def records(out: Path, split: str, seed: int, n: int, size: int, cards: float) -> Iterator[dict[str, Any]]:
    """Write one DICOM file a record below `out/dicom` and yield the records."""
    rng = generator("medical", split, seed)
    (out / "dicom").mkdir(parents=True, exist_ok=True)
    seen: set[tuple] = set()
    for index, kind in enumerate(kinds_of(n)):
        for attempt in range(1000):
            item = draw(rng, kind, size)
            # Slices without lesions differ in little: after some tries a repetition inside the split is accepted.
            if split_of(repr(item.content())) == split and (item.content() not in seen or attempt > 50):
                break
        else:
            raise RuntimeError(f"no new slice for split {split} after 1000 tries")
        seen.add(item.content())
        file = f"dicom/{index:06d}.dcm"
        write_dicom(out / file, render(item, rng.getrandbits(32)), item, index, f"{split}-{seed}")
        yield {
            "id": f"medical-{split}-{seed}-{index:06d}",
            "source": "synthetic_medical",
            "messages": messages_of(rng, split, kind, item, file, cards),
            "meta": {
                "task": "medical",
                "kind": kind,
                "answers": [answer_of(kind, item)],
                "group": f"{index:06d}",
                "expert": "LESIONS" if kind in NEEDS_EXPERT else None,
            },
        }


@register_corpus("medical")
def write(out: Path, split: str, seed: int, n: int, *, size: int = 96, cards: float = 0.7) -> None:
    """Write `n` records of `split` to the folder `out`: slices of `size` × `size` pixels.

    `cards`: share of the training records in which the expert is offered.
    """
    if size < 64 or not 0 <= cards <= 1:
        raise ValueError(f"size must be at least 64 and cards within 0 … 1, not {size} and {cards}")
    out = Path(out)
    write_folder(out, "medical", split, seed, records(out, split, seed, n, size, cards))
