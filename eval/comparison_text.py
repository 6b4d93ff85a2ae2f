"""A comparison for a terminal and for a pull request: differences, signs, warnings, and the first changed samples."""

from __future__ import annotations

from collections.abc import Sequence

from eval.comparison import Change, Comparison, TaskComparison
from eval.table import label
from eval.text_table import aligned, markdown_table, markdown_text, plain

SHOWN = 10
_HEAD = ["task", "figure", "A", "B", "B − A, 95 % interval", "better", "worse", "equal"]


def difference(task: TaskComparison) -> str:
    """`+0.045 [+0.010, +0.080]`."""
    e = task.estimate
    if e.value is None:
        return "–"
    ends = f" [{e.low:+.3f}, {e.high:+.3f}]" if e.low is not None else ""
    return f"{e.value:+.3f}{ends}"


def verdict(task: TaskComparison) -> str:
    """What the interval allows to say."""
    e = task.estimate
    if e.value is None:
        return "no sample has a score on both sides"
    if e.low is None:
        return "too few independent samples for an interval"
    if e.low > 0 or e.high < 0:
        return "B is better" if e.low > 0 else "B is worse"
    return "equal" if e.low == e.high == 0 else "no difference beyond chance"


def figures(task: TaskComparison) -> list[str]:
    """The cells of a task under `_HEAD`."""
    both = ["–" if value is None else f"{value:.3f}" for value in (task.estimate.a, task.estimate.b)]
    return [task.key, label(task.figure), *both, difference(task), str(task.better), str(task.worse), str(task.equal)]


def render_text(comparison: Comparison, first: int = SHOWN) -> str:
    """The comparison for a terminal; `first` changed samples of every task."""
    a, b = comparison.a, comparison.b
    parts = [f"A  {a.model or a.label}  ({a.path})\nB  {b.model or b.label}  ({b.path})"]
    rows = [[*figures(task), verdict(task)] for task in comparison.tasks]
    parts.append(aligned([[*_HEAD, ""], *rows]))
    if warnings := all_warnings(comparison):
        parts.append(
            "\n".join(["These runs differ in more than the model:", *(f"  ! {plain(w, 240)}" for w in warnings)])
        )
    for task in comparison.tasks:
        title = f"{task.key}: {len(task.changed)} of {len(task.changed) + task.equal} answers changed their {label(task.metric)}"
        lines = [[title], *([f"  {plain(cell)}" if not place else plain(cell, 34) for place, cell in enumerate(cells)]
                            for cells in changed_cells(task.changed[:first]))]  # fmt: skip
        if len(task.changed) > first:
            lines.append([f"  … and {len(task.changed) - first} more; --first N or --out PAGE.html shows them"])
        parts.append(aligned(lines))
    return "\n\n".join(parts)


def render_markdown(comparison: Comparison, first: int = SHOWN) -> str:
    """The same as Markdown."""
    a, b = comparison.a, comparison.b
    parts = [f"A: {markdown_text(a.model or a.label)} · B: {markdown_text(b.model or b.label)}\n"]
    parts.append(markdown_table([*_HEAD, "verdict"], [[*figures(task), verdict(task)] for task in comparison.tasks]))
    if warnings := all_warnings(comparison):
        lines = "\n".join(f"- {markdown_text(w, 240)}" for w in warnings)
        parts.append(f"**These runs differ in more than the model:**\n\n{lines}\n")
    head = ["sample", "", "scores", "question", "A", "B", "gold"]
    for task in comparison.tasks:
        if task.changed:
            body = markdown_table(head, changed_cells(task.changed[:first]))
            summary = f"{markdown_text(task.key)}: {len(task.changed)} changed"
            parts.append(f"<details><summary>{summary}</summary>\n\n{body}\n</details>\n")
    return "\n".join(parts)


def all_warnings(comparison: Comparison) -> list[str]:
    """Those of the runs, then those of every task under its name."""
    return [*comparison.warnings, *(f"{task.key}: {words}" for task in comparison.tasks for words in task.warnings)]


def changed_cells(changes: Sequence[Change]) -> list[list[str]]:
    """A row a sample: id, what happened, scores, question, both answers, gold."""
    return [
        [
            str(change.a["id"]), change.kind, f"{change.before:.2f} → {change.after:.2f}",
            str(change.a.get("question", "")), *(str(r["output"] or r.get("error") or "(nothing)") for r in (change.a, change.b)),
            " / ".join(change.a.get("answers") or []),
        ]
        for change in changes
    ]  # fmt: skip
