"""The text-only corpus: look-ups in short written notes and in an expert's findings, so that a mixture always holds
samples without a picture. Labels are any three letters; a (label, value) pair belongs to exactly one split.
"""

from __future__ import annotations

import random
import string
from pathlib import Path

from training.data.synthetic.documents import VALUES, question, transcription
from training.data.synthetic.folder import generator, write_folder
from training.data.synthetic.medical_text import random_lookup
from training.data.synthetic.pages.registry import Fields
from training.data.synthetic.registry import check_split, register_corpus
from training.data.synthetic.split_hash import split_of

FINDINGS_SHARE = 0.25
OPENINGS = ("", "Note:\n", "Items\n", "List:\n")


def random_label(rng: random.Random) -> str:
    """Three different capital letters."""
    return "".join(rng.sample(string.ascii_uppercase, 3))


def draw_note(rng: random.Random, split: str) -> Fields:
    """Three to five fields with distinct labels, every pair content of ``split``."""
    fields: dict[str, str] = {}
    wanted = rng.randint(3, 5)
    while len(fields) < wanted:
        label, value = random_label(rng), rng.choice(VALUES)
        if label not in fields and split_of("text", label, value) == split:
            fields[label] = value
    return list(fields.items())


def note_turns(rng: random.Random, split: str) -> list[dict]:
    """A note with a question in the first user turn; in training further questions follow."""
    fields = draw_note(rng, split)
    asked = rng.sample(fields, len(fields) if split == "train" else 1)
    messages: list[dict] = []
    for index, (label, value) in enumerate(asked):
        text = question(label)
        if index == 0:
            text = f"{rng.choice(OPENINGS)}{transcription(fields)}\n{text}"
        messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": value}]})
    return messages


def make_record(rng: random.Random, split: str, seed: int, index: int) -> dict:
    """One record; findings only in training, because their content is not told apart by split."""
    findings = split == "train" and rng.random() < FINDINGS_SHARE
    messages = random_lookup(rng) if findings else note_turns(rng, split)
    content = messages[-1]["content"]
    answer = content if isinstance(content, str) else "".join(item["text"] for item in content)
    return {
        "id": f"text-{split}-{seed}-{index:06d}",
        "source": "synthetic_text",
        "messages": messages,
        "meta": {
            "task": "text",
            "kind": "findings" if findings else "note",
            "answers": [answer],
            "group": f"{index:06d}",
        },
    }


@register_corpus("text")
def write(out: Path, split: str, seed: int, n: int) -> None:
    """Writes a dataset folder of ``n`` text-only records; in val and test each is one question on a note."""
    rng = generator("text", check_split(split), seed)
    write_folder(Path(out), "text", split, seed, (make_record(rng, split, seed, index) for index in range(n)))
