"""A comparison for a terminal and for a pull request: differences, signs, warnings, and the first changed samples."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from eval.bootstrap import PairedEstimate
from eval.comparison import Change, Comparison, TaskComparison
from eval.results_file import Result
from eval.table import label
from eval.text_table import aligned, markdown_table, markdown_text, plain

SHOWN = 10
CHANGED_HEAD = ["sample", "change", "scores", "question", "A", "B", "gold"]
HEAD = ["task", "figure", "A", "B", "B − A, 95 % interval", "better", "worse", "equal", ""]


def named_side(result: Result, other: Result) -> str:
    """The model of one side; where both are the same, with what tells the sides apart."""
    name = result.model or result.label
    notes = [result.path.name] if name == (other.model or other.label) else []
    if result.provenance.get("blind") and not other.provenance.get("blind"):
        notes.append("without media")
    return f"{name} ({', '.join(notes)})" if notes else name


def _with_path(result: Result, other: Result) -> str:
    blind = result.provenance.get("blind") and not other.provenance.get("blind")
    return f"{result.model or result.label} ({result.path}{', without media' if blind else ''})"


def difference(e: PairedEstimate) -> str:
    """`+0.045 [+0.010, +0.080]`."""
    if e.value is None:
        return "–"
    ends = f" [{e.low:+.3f}, {e.high:+.3f}]" if e.low is not None else ""
    return f"{e.value:+.3f}{ends}"


def verdict(e: PairedEstimate, words: tuple[str, str] = ("better", "worse")) -> str:
    """What the interval allows to say."""
    if e.value is None:
        return "no sample has a score on both sides"
    if e.low is None:
        return "too few independent samples for an interval"
    if e.low > 0 or e.high < 0:
        return f"B is {words[e.low <= 0]}"
    return "equal" if e.low == e.high == 0 else "no difference beyond chance"


def figure_rows(task: TaskComparison) -> list[list[str]]:
    """Rows under `HEAD`: the headline with its signs, then the task's other figures (some are better when lower)."""
    signs = [str(task.better), str(task.worse), str(task.equal), verdict(task.estimate)]
    rows = [[task.key, label(task.figure), *_cells(task.estimate), *signs]]
    for name, e in task.others.items():
        rows.append(["", label(name), *_cells(e), "", "", "", verdict(e, ("higher", "lower"))])
    return rows


def _cells(e: PairedEstimate) -> list[str]:
    return [*("–" if value is None else f"{value:.3f}" for value in (e.a, e.b)), difference(e)]


def render_text(comparison: Comparison, first: int = SHOWN) -> str:
    """The comparison for a terminal; `first` changed samples of every task."""
    a, b = comparison.a, comparison.b
    parts = [f"A  {plain(_with_path(a, b), 400)}\nB  {plain(_with_path(b, a), 400)}"]
    figures = [[plain(cell) for cell in row] for task in comparison.tasks for row in figure_rows(task)]
    parts.append(aligned([HEAD, *figures]))
    if warnings := all_warnings(comparison):
        parts.append(
            "\n".join(["These runs differ in more than the model:", *(f"  ! {plain(w, 240)}" for w in warnings)])
        )
    for task in comparison.tasks:
        compared = len(task.changed) + task.equal
        score = "score" if task.metric == "score" else f"score ({label(task.metric)})"
        lines = [[plain(f"{task.key}: {len(task.changed)} of {compared} answers changed their {score}", 240)]]
        if task.changed[:first]:
            lines.append([f"  {CHANGED_HEAD[0]}", *CHANGED_HEAD[1:]])
        for name, *cells in changed_cells(task.changed[:first]):
            lines.append([f"  {plain(name)}", *(plain(cell, 34) for cell in cells)])
        if len(task.changed) > first:
            lines.append([f"  … and {len(task.changed) - first} more; --first N or --out PAGE.html shows them"])
        parts.append(aligned(lines))
    return "\n\n".join(parts)


def render_markdown(comparison: Comparison, first: int = SHOWN) -> str:
    """The same as Markdown."""
    a, b = comparison.a, comparison.b
    parts = [f"A: {markdown_text(named_side(a, b))} · B: {markdown_text(named_side(b, a))}\n"]
    parts.append(markdown_table(HEAD, [row for task in comparison.tasks for row in figure_rows(task)]))
    if warnings := all_warnings(comparison):
        lines = "\n".join(f"- {markdown_text(w, 240)}" for w in warnings)
        parts.append(f"**These runs differ in more than the model:**\n\n{lines}\n")
    for task in comparison.tasks:
        if task.changed:
            body = markdown_table(CHANGED_HEAD, changed_cells(task.changed[:first]))
            summary = f"{escape(plain(task.key))}: {len(task.changed)} changed"
            parts.append(f"<details><summary>{summary}</summary>\n\n{body}\n</details>\n")
    return "\n".join(parts)


def all_warnings(comparison: Comparison) -> list[str]:
    """Those of the runs, then those of the tasks under their names; what holds for several tasks is said once."""
    tasks: dict[str, list[str]] = {}
    for task in comparison.tasks:
        for words in task.warnings:
            tasks.setdefault(words, []).append(task.key)
    return [*comparison.warnings, *(f"{', '.join(keys)}: {words}" for words, keys in tasks.items())]


def changed_cells(changes: Sequence[Change]) -> list[list[str]]:
    """A row a sample: id, what happened, scores, question, both answers, gold."""
    rows = []
    for change in changes:
        scores = f"{change.before:.2f} → {change.after:.2f}"
        said = [str(row["output"] or row.get("error") or "(nothing)") for row in (change.a, change.b)]
        gold = " / ".join(change.a.get("answers") or [])
        rows.append([str(change.a["id"]), change.kind, scores, str(change.a.get("question", "")), *said, gold])
    return rows
