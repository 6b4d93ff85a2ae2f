"""Mini EgoSchema (`lmms-eval/egoschema`): the subset with answers, the whole set without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._clips import clip, zipped
from tests.helpers.mini_benchmarks._hub_copy import HubCopy
from tests.helpers.mini_benchmarks._registry import mini

REPO = "lmms-eval/egoschema"


def egoschema_row(number: int, answer: str | None) -> dict[str, Any]:
    texts = ("C cooks.", "C cleans the house.", "C plays cards.", "C gardens.", "C reads a book.")
    return {
        "question_idx": str(number),
        "question": f"What is the overarching behavior of C in clip {number}?",
        "video_idx": f"0074f737-11cb-497d-8d07-77c3a8127{number:03d}",
        "option": [f"{letter}. {text}" for letter, text in zip("ABCDE", texts)],
        "answer": answer,
    }


@mini("egoschema")
@mini("egoschema_full")
def write_egoschema(root: Path) -> None:
    from datasets import Value

    text = Value("string")
    names = ("question_idx", "question", "video_idx", "answer")
    features = dict.fromkeys(names, text) | {"option": [text]}
    copy = HubCopy(root, REPO)
    subset = [egoschema_row(0, "3"), egoschema_row(1, "0")]
    whole = [egoschema_row(number, None) for number in range(3)]
    copy.table(subset, features, split="test", config="Subset")
    copy.table(whole, features, split="test", config="GENERATION")
    for part, rows in (("01", whole[:1]), ("02", whole[1:])):
        names = [f"videos/{row['video_idx']}.mp4" for row in rows]
        copy.file(f"videos_chunked_{part}.zip", zipped(dict.fromkeys(names, clip(4))))
