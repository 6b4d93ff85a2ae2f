"""DocVQA (Mathew et al., WACV 2021): questions on scanned document pages, answers are spans of the page. ANLS.

`docvqa` is the validation split; the answers of `docvqa_test` are not public: it leaves a file for the benchmark's
server. Repository, splits, prompt and limit are those of lmms-eval 0.7.3 (`docvqa_val`, `docvqa_test`); VLMEvalKit puts
the same suffix and scores the same. Sub-scores are the types of a question (a question can have several), groups the
pages. An answer cut at 32 tokens loses to its length: give models that explain themselves `--max-new-tokens`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.media_store import MediaStore
from eval.scoring import final_answer
from eval.sources import DataPlaces, Source
from eval.tasks.base import Row
from eval.tasks.benchmark import Benchmark, image, pictures_group
from eval.tasks.registry import register_task

REPO, FORMERLY = "lmms-lab-encoder/DocVQA", ("lmms-lab/DocVQA",)


class PageQuestions(Benchmark):
    """What DocVQA and InfographicVQA share: one picture, one question, answers as a list of spellings."""

    prompt = "{question}\nAnswer the question using a single word or phrase."
    metrics = ("anls",)
    max_new_tokens = 32
    controls = (IMAGES_EXCHANGED,)
    kinds_column = ""
    answers_public = True

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        return row[cls.kinds_column] or ()

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        page = store.save(row["image"])
        yield cls.sample(
            row["questionId"],
            [image(page), cls.prompt.format(question=row["question"])],
            (row["answers"] or []) if cls.answers_public else [],
            kinds=cls.kinds(row),
            group=str(row["docId"]) if "docId" in row else pictures_group(page),
            unscored=None if cls.answers_public else "the answers of this split are not public",
        )

    def submission(self, rows: Sequence[Row]) -> tuple[str, str] | None:
        """A JSON list of {"questionId", "answer"}; rows of the dataset that could not be read have no id, no entry."""
        if self.answers_public:
            return None
        answers = [
            {"questionId": int(row["id"]), "answer": final_answer(row["output"])} for row in rows if row["id"].isdigit()
        ]
        return f"{self.name}_for_submission.json", json.dumps(answers, ensure_ascii=False, indent=1)


@register_task
class DocVQA(PageQuestions):
    name = "docvqa"
    source = Source(REPO, split="validation", config="DocVQA", formerly=FORMERLY)
    kinds_column = "question_types"


@register_task
class DocVQATest(DocVQA):
    name = "docvqa_test"
    source = Source(REPO, split="test", config="DocVQA", formerly=FORMERLY)
    answers_public = False
    controls = ()  # nothing to compare
