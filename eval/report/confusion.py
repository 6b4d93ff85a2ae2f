"""What was asked for against what was said, counted from the rows of a task: calls, yes and no, small sets of answers.

Which tables there are is decided by what the rows hold. Rows under a control, and rows that nothing could score, are
in none of them; a question that failed counts as one that was not answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.proportion import wilson

Row = dict[str, Any]
NONE, OTHER_MODALITY, MALFORMED = "none", "none: card of another modality", "malformed"
ANOTHER = "another answer"
MOST_ANSWERS = 8
LEAST_OF_EACH = 4  # questions per answer, on average: below that, few answers say nothing of a closed set


@dataclass(frozen=True)
class Confusion:
    """Counts of gold (rows) against said (columns)."""

    about: str
    gold: list[str]
    said: list[str]
    counts: list[list[int]]

    def share(self, row: int, column: int) -> float:
        """Of all questions of this row."""
        return self.counts[row][column] / (sum(self.counts[row]) or 1)

    def right(self, row: int, column: int) -> bool:
        """Whether this cell is what was wanted."""
        gold = self.gold[row]
        return (NONE if gold == OTHER_MODALITY else gold) == self.said[column]


@dataclass(frozen=True)
class YesNo:
    """Yes/no questions of one kind. What is neither yes nor no is no right answer to either."""

    about: str
    yes_yes: int = 0
    yes_no: int = 0
    yes_neither: int = 0
    no_yes: int = 0
    no_no: int = 0
    no_neither: int = 0

    @property
    def sensitivity(self) -> tuple[int, int]:
        """(answered yes, all) of the questions whose answer is yes."""
        return self.yes_yes, self.yes_yes + self.yes_no + self.yes_neither

    @property
    def specificity(self) -> tuple[int, int]:
        """(answered no, all) of the questions whose answer is no."""
        return self.no_no, self.no_yes + self.no_no + self.no_neither


def share_text(hits: int, n: int) -> str:
    """`0.913 [0.85–0.95]`, the share with its 95 % interval; `–` for 0 of 0."""
    ends = wilson(hits, n)
    return "–" if ends is None else f"{hits / n:.3f} [{ends[0]:.2f}–{ends[1]:.2f}]"


def calls(rows: Sequence[Row]) -> Confusion | None:
    """Wanted against called expert; None where no row says what was wanted, or no expert is in it at all."""
    from eval.aggregates.trigger_rates import first_reply
    from eval.metrics.expert_trigger import INVALID, called_expert

    counted: Counter[tuple[str, str]] = Counter()
    for row in _asked(rows):
        if "wanted_expert" in row:
            called = called_expert(first_reply(row))
            counted[_wanted(row), MALFORMED if called == INVALID else called or NONE] += 1
    without = {NONE, OTHER_MODALITY, MALFORMED}
    wanted, called = {gold for gold, _ in counted}, {said for _, said in counted}
    experts = sorted((wanted | called) - without)
    if not experts and MALFORMED not in called:
        return None
    gold = [*(name for name in experts if name in wanted), *(x for x in (NONE, OTHER_MODALITY) if x in wanted)]
    return _table("calls", gold, [*experts, MALFORMED, NONE], counted)


def _wanted(row: Row) -> str:
    """The name of the wanted expert, or why none is wanted."""
    from eval.metrics.expert_arguments import wanted_trigger
    from vlm.experts.trigger import TriggerError

    try:
        wanted = wanted_trigger(row["wanted_expert"])
    except TriggerError:  # a gold call that no reply could meet
        return str(row["wanted_expert"])
    return wanted.name if wanted else OTHER_MODALITY if row.get("offer") else NONE


def yes_no(rows: Sequence[Row]) -> list[YesNo]:
    """The yes/no questions of every kind that has some, in the order of the kinds."""
    from eval.metrics.exact_match_closed import first_yes_no
    from eval.scoring import final_answer

    counted: dict[str, Counter[str]] = {}
    for row in _asked(rows):
        gold = _gold(row)
        if gold not in ("yes", "no"):
            continue
        said = None if row.get("error") else first_yes_no(final_answer(row["output"] or ""))
        for kind in _kinds(row):
            counted.setdefault(kind, Counter())[f"{gold}_{said or 'neither'}"] += 1
    return [YesNo(kind, **counted[kind]) for kind in sorted(counted)]


def answer_sets(rows: Sequence[Row]) -> list[Confusion]:
    """Gold against said of every kind of question that has at most `MOST_ANSWERS` answers, yes and no apart."""
    from eval.metrics.accuracy import normalise_answer
    from eval.scoring import final_answer

    by_kind: dict[str, list[tuple[Row, str]]] = {}
    for row in _asked(rows):
        if gold := _gold(row):
            for kind in _kinds(row):
                by_kind.setdefault(kind, []).append((row, gold))
    tables = []
    for kind, found in sorted(by_kind.items()):
        answers = _in_order({gold for _, gold in found})
        if not 2 <= len(answers) <= MOST_ANSWERS or set(answers) <= {"yes", "no"}:
            continue
        if len(found) < LEAST_OF_EACH * len(answers):
            continue
        counted: Counter[tuple[str, str]] = Counter()
        for row, gold in found:
            said = normalise_answer(final_answer(row["output"] or ""))
            if (row["score"] or 0.0) >= 1.0:
                said = gold  # another way to say it, by the task's own metric
            elif row.get("error") or said not in answers or said == gold:
                said = ANOTHER
            counted[gold, said] += 1
        tables.append(_table(kind, answers, [*answers, ANOTHER], counted))
    return tables


def _asked(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["control"] is None and not row.get("unscored")]


def _gold(row: Row) -> str:
    from eval.metrics.accuracy import normalise_answer

    answers = row.get("answers") or []
    return normalise_answer(str(answers[0])) if answers else ""


def _kinds(row: Row) -> list[str]:
    return row.get("kinds") or [row.get("kind") or "all"]


def _in_order(answers: set[str]) -> list[str]:
    """Numbers by size, words by the alphabet."""
    return sorted(answers, key=lambda word: (0, int(word), "") if word.isdecimal() else (1, 0, word))


def _table(about: str, gold: list[str], said: list[str], counted: Counter[tuple[str, str]]) -> Confusion:
    return Confusion(about, gold, said, [[counted[row, column] for column in said] for row in gold])
