"""What a report of results files says in figures, as rows of plain words: the page and the Markdown show the same ones.

Cells are text that is not yet escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.results_file import Result, Row
from eval.speed import Speed, speed_of
from eval.table import control_names, control_text, figure_text, kind_label, label, of_kind, scalar_figures

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
        for name in _names(results, task, control_names):
            table.add("control-row", label(name), *(control_text(r.tasks.get(task, {}), name) for r in results))
    return table


def asked_words(results: Sequence[Result], task: str) -> str:
    """`200 questions`, or how many of each model where they differ."""
    asked = [r.tasks[task].get("questions", r.tasks[task].get("n", 0)) for r in results if task in r.tasks]
    words = " / ".join(str(number) for number in dict.fromkeys(asked)) + " questions"
    narrower = [r.tasks[task] for r in results if "questions" in r.tasks.get(task, {})]
    if not narrower:
        return words
    counted = " / ".join(map(str, sorted({figures["n"] for figures in narrower})))
    return f"{words}, headline over {counted}{of_kind(narrower[0])}"


def _names(results: Sequence[Result], task: str, of) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in of(result.tasks.get(task, {}))))


def _figure(result: Result, task: str, name: str) -> str:
    figures = result.tasks.get(task, {})
    return figure_text(figures.get(name), interval_of(result, task, name), places=3) if name in figures else "–"


def kinds_table(results: Sequence[Result]) -> Table:
    """Sub-scores by kind of question, controls behind them; only tasks that have more than one kind."""
    table = Table(["", "questions", *(result.label for result in results)])
    for task in task_keys(results):
        kinds = _names(results, task, lambda figures: figures.get("kinds") or {})
        if len(kinds) < 2:
            continue
        controls = _names(results, task, lambda figures: figures.get("controls") or {})
        found = [of for result in results for of in (result.tasks.get(task, {}).get("kinds") or {}).values()]
        shown = list(dict.fromkeys(name for of in found for name in of if name != "n" and name not in controls))
        words = " / ".join(map(label, shown))
        words += f"; in brackets: {', '.join(map(label, controls))}" if controls else ""
        table.add("task", task, words)
        for kind in kinds:
            found = [(result.tasks.get(task, {}).get("kinds") or {}).get(kind) for result in results]
            number = " / ".join(dict.fromkeys(str(of.get("n", "?")) for of in found if of))
            table.add("kind", kind_label(kind, kinds), number, *(_kind_cell(of, shown, controls) for of in found))
    return table


def _kind_cell(of_kind: dict[str, Any] | None, figures: Sequence[str], controls: Sequence[str]) -> str:
    if not of_kind:
        return "–"
    words = " / ".join(figure_text(of_kind.get(name)) for name in figures)
    beside = ", ".join(figure_text(of_kind.get(name)) for name in controls)
    return words + (f" ({beside})" if any(name in of_kind for name in controls) else "")


@dataclass(frozen=True)
class Reason:
    """Samples of one task that share a fate, and the models whose answers they were."""

    task: str
    models: list[str]
    what: str
    reason: str
    ids: list[str]

    @property
    def named(self) -> str:
        """The first few samples, and how many more there are."""
        more = f" and {len(self.ids) - NAMED} more" if len(self.ids) > NAMED else ""
        return ", ".join(self.ids[:NAMED]) + more


def answers_table(results: Sequence[Result]) -> Table:
    """How many answers failed, were not scored, could not be read, were cut or are empty."""
    table = Table(["", "asked", "failed", "not scored", "unreadable choice", "cut at the limit", "empty"])
    for task in task_keys(results):
        for result in _begin(table, task, results):
            rows = result.asked(task)
            answered = [row for row in rows if not row.get("error") and row.get("output") is not None]
            unread = unreadable(rows)
            table.add(
                "kind" if len(results) > 1 else "", result.label if len(results) > 1 else task, str(len(rows)),
                str(sum(bool(row.get("error")) for row in rows)), str(sum(bool(row.get("unscored")) for row in rows)),
                "–" if unread is None else str(len(unread)),
                _count_of(answered, lambda row: not row["stopped"], "stopped"),
                str(sum(not row["output"].strip() for row in answered)),
            )  # fmt: skip
    return table


def _begin(table: Table, task: str, results: Sequence[Result]) -> list[Result]:
    """The files that hold the task, under a title where there are several."""
    if len(results) > 1:
        table.add("task", task, "")
    return [result for result in results if task in result.tasks]


def _count_of(rows: Sequence[Row], test, key: str) -> str:
    return str(sum(test(row) for row in rows)) if all(key in row for row in rows) else "–"


def unreadable(rows: Sequence[Row]) -> list[Row] | None:
    """Multiple-choice answers from which the metric's rule reads no letter; None where nothing was read by a rule."""
    from eval.metrics.mcq_option_extraction import extraction_failed
    from eval.scoring import final_answer

    by_rule = [(row, rule) for row in rows if (rule := _choice_rule(row))]
    found = []
    for row, rule in by_rule:
        scoring = row.get("scoring") or {}
        options, choices = scoring.get("options") or [], scoring.get("choices")
        if not row.get("error") and extraction_failed(final_answer(row["output"]), options, choices, rule):
            found.append(row)
    return found if by_rule else None


def _choice_rule(row: Row) -> str | None:
    """The rule by which the first multiple-choice metric that judged a row reads a letter."""
    scoring = row.get("scoring") or {}
    for metric, score in (row.get("scores") or {}).items():
        family, _, rule = metric.partition(".")
        if score is not None and (family == MULTIPLE_CHOICE or (family == "mmmu" and scoring.get("options"))):
            return rule or scoring.get("extractor") or "radio_vlm"
    return None


def reasons(results: Sequence[Result]) -> list[Reason]:
    """Everything that went wrong or could not be judged, grouped by its reason, controls included; most first."""
    found: dict[tuple, Reason] = {}
    for task in task_keys(results):
        for result in results:
            for (what, why), ids in _fates(result, task).items():
                key = (task, what, why, tuple(ids))  # what happens to several models alike is said once
                found.setdefault(key, Reason(task, [], what, why, ids)).models.append(result.label)
    return sorted(found.values(), key=lambda reason: -len(reason.ids))


def _fates(result: Result, task: str) -> dict[tuple[str, str], list[str]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in result.rows(task):
        where = f" ({label(row['control'])})" if row["control"] else ""
        if row.get("error"):
            groups.setdefault(("failed" + where, str(row["error"])), []).append(row["id"])
        elif row.get("unscored") and not row["control"]:
            groups.setdefault(("not scored", str(row["unscored"])), []).append(row["id"])
    for row in unreadable(result.asked(task)) or []:
        groups.setdefault(("unreadable choice", "no option can be read from the answer"), []).append(row["id"])
    return groups


def reasons_table(results: Sequence[Result]) -> Table:
    table = Table(["", "models", "what", "answers", "reason", "samples"])
    for one in reasons(results):
        table.add("", one.task, ", ".join(one.models), one.what, str(len(one.ids)), one.reason, one.named)
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
    columns = ("seconds a question", "prefill tokens/s", "decode tokens/s", "share of encoding", "prompt tokens",
               "media tokens", "tokens per image", "tokens per video", "new tokens")  # fmt: skip
    table = Table(["", *columns])
    titles: set[str] = set()
    for task, result, s in speeds(results):
        if len(results) > 1 and task not in titles:
            table.add("task", task, "")
            titles.add(task)
        share = "–" if s.encode_share is None else f"{100 * s.encode_share:.0f} %"
        table.add(
            "kind" if len(results) > 1 else "", result.label if len(results) > 1 else task,
            digits(s.seconds_per_request, 3), digits(s.prefill_tokens_per_second),
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
