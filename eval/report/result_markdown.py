"""A report of results files as Markdown, for a pull request: the tables of the page, without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from eval.report import confusion, expert_tables
from eval.report import result_tables as tables
from eval.report.notice import medical_tasks, notice
from eval.report.private import without_patients
from eval.report.result_provenance import run_facts, task_facts
from eval.results_file import Result
from eval.table import label
from eval.text_table import markdown_table, markdown_text, plain


def markdown(results: Sequence[Result]) -> str:
    """The text of the file."""
    results = without_patients(results)
    parts = ["# Evaluation of " + ", ".join(markdown_text(result.label) for result in results) + "\n"]
    parts.append(f"**{words}**\n" if (words := notice(results)) else "")
    parts.append("In brackets: 95 % intervals, clustered by image or video.\n")
    parts += [
        _part("Figures", tables.figures_table(results)),
        _part("By kind of question", tables.kinds_table(results)),
        _part("With and without the expert", expert_tables.worth_table(results)),
        _doubts(results),
        *_confusions(results),
        _part("Calibration", expert_tables.calibration_table(results)),
    ]
    parts += [_part("What went wrong", tables.answers_table(results)), _part("Reasons", tables.reasons_table(results))]
    parts.append(_part("Speed", tables.speed_table(results)))
    parts.append("## Small print\n")
    for result in results:
        parts.append(_facts(f"{result.label}: {result.path.name}, sha256 {result.digest}", run_facts(result.data)))
        parts += [_facts(f"{result.label}: {task}", task_facts(result.data, task)) for task in result.tasks]
    return "\n".join(part for part in parts if part)


def _part(title: str, table: tables.Table) -> str:
    if not table.rows:
        return ""
    rows = [
        [f"{cells[0]} ({cells[1]})" if cells[1] else cells[0], *[""] * (len(table.head) - 1)] if kind == "task" else
        [("– " if kind == "control-row" else "") + cells[0], *cells[1:]]
        for kind, cells in zip(table.kinds, table.rows)
    ]  # fmt: skip
    return f"## {title}\n\n{markdown_table(table.head, rows)}"


def _doubts(results: Sequence[Result]) -> str:
    """How often answers say that image and expert disagree."""
    lines = []
    for task in medical_tasks(results):
        for result in results:
            who = f"{task}, {result.label}" if len(results) > 1 else task
            if words := expert_tables.disagreement(result, task):
                lines.append(f"- {markdown_text(f'{who}: {words}')}\n")
    return "".join(lines)


def _confusions(results: Sequence[Result]) -> list[str]:
    """Calls, small sets of answers and yes/no questions of every medical task."""
    parts = []
    for task in medical_tasks(results):
        for result in (one for one in results if task in one.tasks):
            rows = result.asked(task)
            who = f"{task}, {result.label}" if len(results) > 1 else task
            if (calls := confusion.calls(rows)) is not None:
                parts.append(_part(f"Calls: {who}", expert_tables.confusion_table(calls, "wanted, called")))
            for one in confusion.answer_sets(rows):
                table = expert_tables.confusion_table(one, "answer, said")
                parts.append(_part(f"Answers to {label(one.about)}: {who}", table))
            parts.append(_part(f"Yes or no: {who}", expert_tables.yes_no_table(confusion.yes_no(rows))))
    return parts


def _facts(title: str, facts: dict[str, str]) -> str:
    lines = "\n".join(f"- {markdown_text(name)}: {markdown_text(value, 600)}" for name, value in facts.items())
    return f"<details><summary>{escape(plain(title, 200))}</summary>\n\n{lines}\n\n</details>\n"
