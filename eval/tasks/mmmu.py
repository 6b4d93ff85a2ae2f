"""MMMU (Yue et al., CVPR 2024): college questions in 30 subjects, with up to seven pictures each. Accuracy.

Validation split (900 questions), repository, prompts and limit of lmms-eval 0.7.3 in its chat form: each `<image n>`
marker of question and options becomes the n-th picture at that place. lmms-eval puts pictures in the order of their
numbers and drops text between repeated markers; ours stand where their own markers do. VLMEvalKit's prompt is another
(`Question: …\\nOptions:\\n…\\nPlease select the correct answer from the options above.`).

The headline counts every question once (not subjects). `accuracy` reads letters with our rule, `accuracy_official` with
MMMU's, whose random choice for unreadable answers is "wrong" here. Sub-scores: discipline, subject, type of question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from eval.aggregates import Aggregate, Mean, UnreadableRate
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.literal_list import literal_list
from eval.media_store import MediaStore
from eval.metrics.mmmu import MULTIPLE_CHOICE, OPEN
from eval.sources import DataPlaces, Source
from eval.tasks.benchmark import Benchmark, image, lettered, pictures_group
from eval.tasks.registry import register_task

DISCIPLINES = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": (
        "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health"
    ),
    "Humanities and Social Science": "History Literature Psychology Sociology",
    "Tech and Engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials"
        " Mechanical_Engineering"
    ),
}
DISCIPLINE_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects.split()}
_MARKER = re.compile(r"<image (\d+)>")


@register_task
class MMMU(Benchmark):
    name = "mmmu"
    source = Source("lmms-lab-encoder/MMMU", split="validation", formerly=("lmms-lab/MMMU",))
    prompt = "{question}\n{options}\n\nAnswer with the option's letter from the given choices directly."
    open_prompt = "{question}\n\nAnswer the question using a single word or phrase."
    metrics = ("mmmu", "mmmu_official")
    max_new_tokens = 128
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        found = re.fullmatch(r"[^_]+_(.+)_\d+", row["id"])
        if found is None or found[1] not in DISCIPLINE_OF:
            raise ValueError(f"{row['id']!r} names none of the 30 subjects")
        return DISCIPLINE_OF[found[1]], found[1], row["question_type"]

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        question_type = row["question_type"]
        if question_type == MULTIPLE_CHOICE:
            options = listed(row["options"])
            text = cls.prompt.format(question=row["question"], options=lettered(options))
            scoring = {"question_type": question_type, "options": options}
        elif question_type == OPEN:
            text = cls.open_prompt.format(question=row["question"])
            scoring = {"question_type": question_type}
        else:
            raise ValueError(f"question_type is {question_type!r}; known: {MULTIPLE_CHOICE}, {OPEN}")
        content = interleaved(text, row, store)
        shown = [item["image"] for item in content if isinstance(item, dict)]
        yield cls.sample(
            row["id"], content, gold_answers(row["answer"]),
            kinds=cls.kinds(row), group=pictures_group(*shown), scoring=scoring,
        )  # fmt: skip

    def aggregates(self) -> dict[str, Aggregate]:
        return {
            "accuracy": Mean("mmmu", "accuracy"),
            "accuracy_official": Mean("mmmu_official", "accuracy_official"),
            "unreadable_rate": UnreadableRate(),
        }

    @classmethod
    def about(cls) -> dict[str, Any]:
        return {**super().about(), "open_prompt": cls.open_prompt}


def interleaved(text: str, row: dict[str, Any], store: MediaStore) -> list[dict[str, Any] | str]:
    """Pieces of text and pictures in order; blank pieces are left out, outer blanks stripped, as lmms-eval does.

    A picture that no marker names is not shown. Raises ValueError for a marker without a picture.
    """
    content: list[dict[str, Any] | str] = []
    for place, piece in enumerate(_MARKER.split(text)):
        if place % 2 == 0:
            content += [piece.strip()] if piece.strip() else []
            continue
        picture = row.get(f"image_{piece}")
        if picture is None:
            raise ValueError(f"<image {piece}> is in the question, but there is no picture image_{piece}")
        content.append(image(store.save(picture)))
    return content


def listed(options: str) -> list[str]:
    """The options: MMMU keeps a list's text in a string. Raises ValueError for anything else, an empty list too."""
    value = literal_list(options, "options are")
    if not value:
        raise ValueError(f"options are not the text of a list: {options!r:.80}")
    return [str(option) for option in value]


def gold_answers(answer: Any) -> list[str]:
    """The answer, or several where it is the text of a list: each is right, as in the benchmark's own script.

    lmms-eval compares with the list's text as it stands. "?" stands for an answer that is not public.
    """
    if answer is None or answer == "?":
        return []
    if str(answer).startswith("["):
        try:
            return listed(answer)
        except ValueError:  # an answer in brackets, such as an interval
            pass
    return [str(answer)]
