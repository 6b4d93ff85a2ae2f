"""What VQA-RAD, SLAKE and PathVQA share: open and closed questions, judged by different metrics and never mixed.

Closed questions (yes/no, or a choice named in the question) are judged by equality, open ones by token recall and F1
(LLaVA-Med's pair of figures). A figure over closed questions has ALL closed questions in its denominator: LLaVA-Med's
own script drops wrong yes/no answers from it. The figures and their definitions:

| figure | over | rule |
|---|---|---|
| `closed_accuracy` | closed | LLaVA-Med's intent: the first yes/no word is the gold one; else the whole answer |
| `open_recall`, `open_f1` | open | `token_recall`, `token_f1` |
| `exact_match` | all | equal after strip and lower case |
| `closed_accuracy_strict` | closed | equal after strip and lower case |
| `closed_accuracy_vila_m3` | closed | VILA-M3's scripts: as strict; PathVQA's does not strip |

A row says its `answer_type` and in `answer_type_from` whether the dataset states it or it was derived from the gold
answer (yes or no: closed, else open), since the two splits are not the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from eval.aggregates import Aggregate, Mean
from eval.backends.base import Reply
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.tasks._pictures import pictures_or_problem, with_problem
from eval.tasks.base import Row
from eval.tasks.benchmark import Benchmark, pictures_group

SHORT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
CLOSED, OPEN = "closed", "open"
CLOSED_METRICS = ("exact_match_closed.llava_med", "exact_match_closed.strict", "exact_match_closed.vila_m3")
OPEN_METRICS = ("token_recall", "token_f1")


def answer_type_of(stated: Any, answer: Any) -> tuple[str | None, str]:
    """(answer type, "dataset" or "gold answer"): as stated, blanks aside, else by the gold answer; None: unknown.

    Raises ValueError for a stated type that is neither open nor closed.
    """
    if stated is not None and str(stated).strip():
        kind = str(stated).strip().lower()
        if kind not in (CLOSED, OPEN):
            raise ValueError(f"answer_type {stated!r} is neither OPEN nor CLOSED")
        return kind, "dataset"
    if answer is None:
        return None, "gold answer"
    return (CLOSED if str(answer).strip().lower() in ("yes", "no") else OPEN), "gold answer"


class MedicalVQA(Benchmark):
    """Base of the tasks with open and closed questions; not a task itself."""

    prompt = SHORT_ANSWER
    medical = True
    metrics = (*CLOSED_METRICS, *OPEN_METRICS, "exact_match_closed")
    for_all: ClassVar[tuple[str, ...]] = ("exact_match_closed",)
    """Those of `metrics` that judge open and closed questions alike."""
    max_new_tokens = 32
    controls = (IMAGES_EXCHANGED,)
    calibrated = True
    figures_by_kind = ("closed_accuracy", "open_recall", "exact_match")
    columns: ClassVar[tuple[str, ...]] = ("answer_type", "answer_type_from")
    """What is known of a question and belongs into its row."""

    @classmethod
    def question(
        cls,
        sample_id: Any,
        picture: Callable[[], str],
        question: Any,
        answer: Any,
        *,
        answer_type: Any = None,
        **about: Any,
    ) -> Sample:
        """One question about one picture.

        Args:
            picture: returns its path. Where it raises, the sample keeps its answer type, so that it is wrong in the
                denominators that it belongs to.
            answer_type: as the dataset states it, if it does.
            about: kinds, columns, scoring, and the group where pictures have a name; else it is their content.

        Raises ValueError without a question.
        """
        if not str(question or "").strip():
            raise ValueError("no question in the row")
        kind, told_by = answer_type_of(answer_type, answer)
        pictures, problem = pictures_or_problem(lambda: [picture()])
        if pictures:
            about = {"group": pictures_group(pictures[0]["image"]), **about}
        sample = cls.sample(
            sample_id,
            [*pictures, cls.prompt.format(question=str(question).strip())],
            [] if answer is None else [answer],
            answer_type=kind,
            answer_type_from=told_by,
            **about,
        )
        return with_problem(sample, problem)

    def metrics_for(self, sample: Sample) -> Sequence[str]:
        kind = sample.meta.get("answer_type")
        own = {CLOSED: CLOSED_METRICS, OPEN: OPEN_METRICS}.get(kind, (*CLOSED_METRICS, *OPEN_METRICS))
        return (*own, *self.for_all)

    def gold_yes(self, sample: Sample) -> bool | None:
        return super().gold_yes(sample) if sample.meta.get("answer_type") == CLOSED else None

    def row(self, sample: Sample, reply: Reply, control: str | None, note: dict[str, Any]) -> Row:
        return super().row(sample, reply, control, {**{c: sample.meta.get(c) for c in self.columns}, **note})

    def aggregates(self) -> dict[str, Aggregate]:
        return {
            "closed_accuracy": Mean("exact_match_closed.llava_med", "closed_accuracy"),
            "open_recall": Mean("token_recall", "open_recall"),
            "open_f1": Mean("token_f1", "open_f1"),
            "exact_match": Mean("exact_match_closed", "exact_match"),
            "closed_accuracy_strict": Mean("exact_match_closed.strict", "closed_accuracy_strict"),
            "closed_accuracy_vila_m3": Mean("exact_match_closed.vila_m3", "closed_accuracy_vila_m3"),
        }

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        """As usual, and how many questions are closed and open: the denominators."""
        figures = super().figures(rows)
        asked = [row for row in rows if row["control"] is None]
        figures["questions_by_type"] = {
            kind: sum(row["answer_type"] == kind for row in asked) for kind in (CLOSED, OPEN)
        }
        return figures
