"""What an expert was worth, and what was confused with what, as rows of plain words: for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.controls import EXPERT_WITHHELD, EXPERT_WRONG
from eval.report.confusion import Confusion, YesNo, share_text
from eval.report.result_tables import Table, interval_of, task_keys
from eval.results_file import Result, Row
from eval.table import figure_text, label

NAMES = {None: "with the expert", EXPERT_WITHHELD: "expert withheld", EXPERT_WRONG: "wrong expert"}
DISAGREEMENT = "disagreement_said"


@dataclass(frozen=True)
class Share:
    """A figure with its 95 % interval, clustered by patient, over `n` questions."""

    control: str | None
    value: float | None
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Worth:
    """The same questions with the expert, without, and with one that reports on another patient."""

    result: Result
    task: str
    about: str
    metric: str
    shares: list[Share]


def worth(results: Sequence[Result]) -> list[Worth]:
    """Of every task that was asked with and without its expert: questions that want one, and those that want none."""
    found = []
    for task in task_keys(results):
        for result in results:
            rows = result.rows(task)
            if not any(row["control"] in (EXPERT_WITHHELD, EXPERT_WRONG) for row in rows):
                continue
            metric = _metric(result, task)
            for about, wanted in (("questions that want an expert", True), ("questions that want none", False)):
                group = [row for row in rows if bool(row.get("wanted_expert")) == wanted]
                shares = [_share(group, metric, control) for control in NAMES]
                if group and len([share for share in shares if share.n]) > 1:
                    found.append(Worth(result, task, about, metric, [share for share in shares if share.n]))
    return found


def _metric(result: Result, task: str) -> str:
    """The task's headline metric."""
    known = next((row["scores"] for row in result.rows(task) if row.get("scores")), {})
    named = [name for name in result.about(task).get("metrics") or [] if name in known]
    return next(iter([*named, *known]), "")


def _share(rows: Sequence[Row], metric: str, control: str | None) -> Share:
    from eval.aggregates import Mean
    from eval.bootstrap import interval

    rows = [row for row in rows if row["control"] == control and not (control and row.get("error"))]
    found = interval(Mean(metric), rows)
    ends = None if found.low is None or found.high is None else (found.low, found.high)
    return Share(control, found.value, ends, len(rows))


def disagreement(result: Result, task: str) -> str:
    """How often the model said that image and expert disagree, in words; empty where nobody counted."""
    figures = result.tasks.get(task, {})
    wrong, right = (figures.get(name) for name in (DISAGREEMENT, f"{DISAGREEMENT}_as_asked"))
    if wrong is None:
        return ""
    ends = interval_of(result, task, DISAGREEMENT)
    words = f"with the wrong expert {figure_text(wrong, ends, 3)} of the answers say that image and expert disagree"
    return words + (f", with the right one {figure_text(right, None, 3)}" if right is not None else "")


def worth_table(results: Sequence[Result]) -> Table:
    table = Table(["", "questions", *NAMES.values()])
    for one in worth(results):
        who = f"{one.result.label}: " if len(results) > 1 else ""
        by_control = {share.control: share for share in one.shares}
        most = max(share.n for share in one.shares)
        cells = [_share_cell(by_control.get(control), most) for control in NAMES]
        table.add("", f"{who}{one.task}, {one.about}", str(most), *cells)
    return table


def _share_cell(share: Share | None, most: int) -> str:
    if share is None:
        return "–"
    return figure_text(share.value, share.interval, 3) + (f", {share.n} of them" if share.n < most else "")


def confusion_table(confusion: Confusion, corner: str) -> Table:
    """`150 (100 %)` in every cell: the count and its share of the row."""
    table = Table([corner, *confusion.said])
    for place, gold in enumerate(confusion.gold):
        shares = [confusion.share(place, column) for column in range(len(confusion.said))]
        cells = [f"{count} ({100 * share:.0f} %)" for count, share in zip(confusion.counts[place], shares)]
        table.add("", gold, *cells)
    return table


def yes_no_table(found: Sequence[YesNo]) -> Table:
    table = Table([
        "", "yes: said yes", "said no", "neither", "no: said yes", "said no", "neither", "sensitivity", "specificity",
    ])  # fmt: skip
    for one in found:
        counts: list[Any] = [one.yes_yes, one.yes_no, one.yes_neither, one.no_yes, one.no_no, one.no_neither]
        figures = share_text(*one.sensitivity), share_text(*one.specificity)
        table.add("", label(one.about), *map(str, counts), *figures)
    return table


def calibration_of(result: Result, task: str) -> dict[str, Any] | None:
    """The calibration that a task's figures hold, with at least one bin that is not empty."""
    found = result.tasks.get(task, {}).get("calibration")
    if not isinstance(found, dict) or not any(one.get("count") for one in found.get("bins") or []):
        return None
    return found


def calibration_table(results: Sequence[Result]) -> Table:
    """The bins of every calibration."""
    table = Table(["", "probability of yes", "answers", "mean probability", "share of yes"])
    for task in task_keys(results):
        for result in results:
            who = f"{result.label}: {task}" if len(results) > 1 else task
            for one in (calibration_of(result, task) or {}).get("bins", []):
                if one.get("count"):
                    between = f"{one['low']:g} to {one['high']:g}"
                    figures = f"{one['mean_p']:.3f}", share_text(round(one["share_yes"] * one["count"]), one["count"])
                    table.add("", who, between, str(one["count"]), *figures)
    return table
