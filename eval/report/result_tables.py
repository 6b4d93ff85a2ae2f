"""What a report of results files says in figures, as rows of plain words: the page and the Markdown show the same ones.

Cells are text that is not yet escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.results_file import Result, Row
from eval.speed import Speed, speed_of
from eval.table import figure_text, label, lines_of, scalar_figures

MULTIPLE_CHOICE = "mcq_accuracy"
NAMED = 8


@dataclass
class Table:
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """The part that each row plays: task, figure, control-row, kind."""

    def add(self, kind: str, *cells: str) -> None:
        self.rows.append(list(cells))
        self.kinds.append(kind)


def task_keys(results: Sequence[Result]) -> list[str]:
    """All tasks, in the order of the files."""
    return list(dict.fromkeys(key for result in results for key in result.tasks))


def interval_of(result: Result, task: str, figure: str) -> tuple[float, float] | None:
    """The 95 % interval that the file gives to a figure."""
    ends = (result.tasks.get(task, {}).get("intervals") or {}).get(figure)
    return tuple(ends) if ends and None not in ends else None


def figures_table(results: Sequence[Result]) -> Table:
    """Every figure with its interval, then controls, a column a model."""
    table = Table(["", *(result.label for result in results)])
    for task in task_keys(results):
        table.add("task", task, asked_words(results, task))
        for name in _names(results, task, scalar_figures):
            cells = [_figure(result, task, name) for result in results]
            table.add("figure", label(name), *cells)
        for name in _names(results, task, lambda figures: figures.get("controls") or {}):
            values = [(result.tasks.get(task, {}).get("controls") or {}).get(name) for result in results]
            table.add("control-row", label(name), *(figure_text(value) for value in values))
    return table


def asked_words(results: Sequence[Result], task: str) -> str:
    """`200 questions`, or how many of each model where they differ."""
    asked = [r.tasks[task].get("questions", r.tasks[task].get("n", 0)) for r in results if task in r.tasks]
    words = " / ".join(str(number) for number in dict.fromkeys(asked)) + " questions"
    counted = {r.tasks[task]["n"] for r in results if "questions" in r.tasks.get(task, {})}
    return f"{words}, headline over {' / '.join(map(str, sorted(counted)))}" if counted else words


def _names(results: Sequence[Result], task: str, of) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in of(result.tasks.get(task, {}))))


def _figure(result: Result, task: str, name: str) -> str:
    figures = result.tasks.get(task, {})
    return figure_text(figures.get(name), interval_of(result, task, name)) if name in figures else "–"


def kinds_table(results: Sequence[Result]) -> Table:
    """Sub-scores by kind of question, controls behind them; only tasks that have more than one kind."""
    table = Table(["", "questions", *(result.label for result in results)])
    for task in task_keys(results):
        kinds = _names(results, task, lambda figures: figures.get("kinds") or {})
        if len(kinds) < 2:
            continue
        controls = _names(results, task, lambda figures: figures.get("controls") or {})
        table.add("task", task, _kind_words(results, task, controls))
        for kind in kinds:
            found = [(result.tasks.get(task, {}).get("kinds") or {}).get(kind) for result in results]
            number = " / ".join(dict.fromkeys(str(of.get("n", "?")) for of in found if of))
            table.add("kind", label(kind), number, *(_kind_cell(of, controls) for of in found))
    return table


def _kind_words(results: Sequence[Result], task: str, controls: Sequence[str]) -> str:
    first = next(iter(next(r for r in results if task in r.tasks).tasks[task]), "")
    return label(first) + (f"; in brackets: {', '.join(map(label, controls))}" if controls else "")


def _kind_cell(of_kind: dict[str, Any] | None, controls: Sequence[str]) -> str:
    if not of_kind:
        return "–"
    headline = next((v for name, v in of_kind.items() if name != "n" and name not in controls), None)
    beside = [figure_text(of_kind.get(name)) for name in controls]
    return figure_text(headline) + (f" ({', '.join(beside)})" if any(name in of_kind for name in controls) else "")


@dataclass(frozen=True)
class Reason:
    """Samples of one task and model that share a fate."""

    task: str
    model: str
    what: str
    reason: str
    ids: list[str]


def answers_table(results: Sequence[Result]) -> Table:
    """How many answers failed, were not scored, could not be read, were cut or are empty."""
    table = Table(["", "model", "asked", "failed", "not scored", "unreadable choice", "cut at the limit", "empty"])
    for task in task_keys(results):
        for result in results:
            rows = result.asked(task)
            if task not in result.tasks:
                continue
            answered = [row for row in rows if not row.get("error") and row.get("output") is not None]
            unread = unreadable(rows)
            table.add(
                "kind", task, result.label, str(len(rows)), str(sum(bool(row.get("error")) for row in rows)),
                str(sum(bool(row.get("unscored")) for row in rows)), "–" if unread is None else str(len(unread)),
                _count_of(answered, lambda row: not row["stopped"], "stopped"),
                str(sum(not row["output"].strip() for row in answered)),
            )  # fmt: skip
    return table


def _count_of(rows: Sequence[Row], test, key: str) -> str:
    return str(sum(test(row) for row in rows)) if all(key in row for row in rows) else "–"


def unreadable(rows: Sequence[Row]) -> list[Row] | None:
    """Multiple-choice answers from which the metric's rule reads no letter; None where the task has no such metric."""
    from eval.metrics.mcq_option_extraction import extraction_failed
    from eval.scoring import final_answer

    judged = [row for row in rows if MULTIPLE_CHOICE in (row.get("scores") or {})]
    if not judged:
        return None
    found = []
    for row in judged:
        scoring = {k: v for k, v in (row.get("scoring") or {}).items() if k in ("choices", "extractor") and v}
        options = (row.get("scoring") or {}).get("options") or []
        readable = row.get("error") or row.get("unscored")
        if not readable and extraction_failed(final_answer(row["output"]), options, **scoring):
            found.append(row)
    return found


def reasons(results: Sequence[Result]) -> list[Reason]:
    """Everything that went wrong or could not be judged, grouped by its reason, controls included."""
    found: list[Reason] = []
    for task in task_keys(results):
        for result in results:
            rows = result.rows(task)
            groups: dict[tuple[str, str], list[str]] = {}
            for row in rows:
                where = f" ({label(row['control'])})" if row["control"] else ""
                if row.get("error"):
                    groups.setdefault(("failed" + where, str(row["error"])), []).append(row["id"])
                elif row.get("unscored") and not row["control"]:
                    groups.setdefault(("not scored", str(row["unscored"])), []).append(row["id"])
            for row in unreadable(result.asked(task)) or []:
                groups.setdefault(("unreadable choice", "no option can be read from the answer"), []).append(row["id"])
            found += [Reason(task, result.label, what, why, ids) for (what, why), ids in groups.items()]
    return found


def reasons_table(results: Sequence[Result]) -> Table:
    table = Table(["", "model", "what", "answers", "reason", "samples"])
    for reason in sorted(reasons(results), key=lambda r: -len(r.ids)):
        more = f" and {len(reason.ids) - NAMED} more" if len(reason.ids) > NAMED else ""
        samples = ", ".join(reason.ids[:NAMED]) + more
        table.add("kind", reason.task, reason.model, reason.what, str(len(reason.ids)), reason.reason, samples)
    return table


def speeds(results: Sequence[Result]) -> list[tuple[str, Result, Speed]]:
    """(task, results file, rates) of everything that was timed."""
    timed = []
    for task in task_keys(results):
        for result in results:
            speed = speed_of(result.about(task), result.rows(task))
            if speed.seconds_per_request is not None:
                timed.append((task, result, speed))
    return timed


def speed_table(results: Sequence[Result]) -> Table:
    head = ["", "model", "s a question", "prefill tokens/s", "decode tokens/s", "encoding", "prompt tokens",
            "of these media", "tokens an image", "tokens a video", "new tokens"]  # fmt: skip
    table = Table(head)
    for task, result, s in speeds(results):
        share = "–" if s.encode_share is None else f"{100 * s.encode_share:.0f} %"
        table.add(
            "kind", task, result.label, digits(s.seconds_per_request, 3), digits(s.prefill_tokens_per_second),
            digits(s.decode_tokens_per_second), share, digits(s.prompt_tokens_per_request),
            digits(s.media_tokens_per_request), digits(s.media_tokens_per_image), digits(s.media_tokens_per_video),
            digits(s.new_tokens_per_request, 1),
        )  # fmt: skip
    return table


def digits(value: float | None, places: int = 0) -> str:
    return "–" if value is None else f"{value:,.{places}f}".replace(",", "\u202f")


def is_binary(rows: Sequence[Row]) -> bool:
    """Whether all scores are right or wrong, so that a distribution says nothing new."""
    return all(row["score"] in (None, 0.0, 1.0) for row in rows)
