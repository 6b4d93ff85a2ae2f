"""The stage × task table: gathers the results files of a run and lays the figures out for a terminal.

`collect` reads `<run>/eval/stageN*.json`, one or several files a stage; `render_table`, `render_figures` return text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.results import write_json
from eval.speed import speed_line, speed_of

_STAGE_FILE = re.compile(r"(stage\d+)\b.*\.json$")
_NAMES = {
    "exact_match": "exact match",
    "anls": "ANLS",
    "teds": "TEDS",
    "rouge_l": "ROUGE-L",
    "token_f1": "token F1",
    "vqa_accuracy": "VQA accuracy",
    "mcq_accuracy": "multiple choice",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "images_exchanged": "images exchanged",
    "frames_shuffled": "frames shuffled",
    "expert_withheld": "expert withheld",
    "expert_wrong": "expert wrong",
    "trigger_precision": "trigger precision",
    "trigger_recall": "trigger recall",
    "ece": "calibration error",
    "ece_adaptive": "calibration error, adaptive bins",
    "brier": "Brier score",
    "auroc": "AUROC",
    "false_trigger_rate_other_modality": "false triggers, other modality",
    "disagreement_said": "says that image and expert disagree, expert wrong",
    "disagreement_said_as_asked": "says that image and expert disagree, as asked",
}
_RULED = ("mcq_accuracy", "exact_match_closed")
LOWER_IS_BETTER = (
    *("unreadable_rate", "invalid_rate", "false_trigger_rate", "false_trigger_rate_other_modality"),
    *("ece", "ece_adaptive", "brier"),
)
_AS_ASKED = {"frames_shuffled": "unshuffled"}  # what a question is without the control; others: "as asked"
_NO_KIND = "all"  # the kind of a record that names none
_NOT_FIGURES = ("n", "failed", "questions", "unscored", "without_subtitles", "kinds", "controls")


def stage_files(run_dir: str | Path) -> dict[str, list[Path]]:
    """Results files of a run by stage name, stages in order; the untrained model's stage0 too if it was evaluated."""
    found: dict[str, list[Path]] = {}
    for path in sorted((Path(run_dir) / "eval").glob("stage*.json")):
        match = _STAGE_FILE.match(path.name)
        if match:
            found.setdefault(match[1], []).append(path)
    return dict(sorted(found.items(), key=lambda pair: int(pair[0][5:])))


def collect(run_dir: str | Path) -> dict[str, Any]:
    """`{"stages": {"stage1": {task: figures, …}, …}}` of a run; callers add wall seconds, checkpoint and report."""
    stages: dict[str, Any] = {}
    for stage, files in stage_files(run_dir).items():
        stages[stage] = {}
        for file in files:
            stages[stage] |= json.loads(file.read_text(encoding="utf-8"))["tasks"]
    return {"stages": stages}


def write_results(results: dict[str, Any], path: str | Path) -> None:
    """Writes `results.json` of a run."""
    write_json(results, path)


def label(name: str) -> str:
    """`exact_match` → `exact match`, `mcq_accuracy.RULE` → `multiple choice, rule RULE`."""
    family, _, rule = name.partition(".")
    if rule and family in _RULED:
        return f"{label(family)}, rule {rule}"
    return _NAMES.get(name, name.replace("_", " ")) + (", lower is better" if name in LOWER_IS_BETTER else "")


def kind_label(kind: str, kinds: Iterable[str]) -> str:
    """A kind's name; records without one are no total, which their name `all` beside others' would promise."""
    return "without kind" if kind == _NO_KIND and len(set(kinds)) > 1 else label(kind)


def control_names(figures: dict[str, Any]) -> list[str]:
    """The controls of a task that were made, then those that no question allowed."""
    return list(dict.fromkeys([*(figures.get("controls") or {}), *(figures.get("control_pairs") or {})]))


def control_note(figures: dict[str, Any], control: str) -> str:
    """`0.750 unshuffled, 4 of 8 questions` of a control over fewer questions than the headline, else nothing."""
    pair = (figures.get("control_pairs") or {}).get(control)
    if pair is None:
        return ""
    if not pair["n"]:
        return f"possible for 0 of {pair['of']} questions"
    as_asked = _AS_ASKED.get(control, "as asked")
    return f"{_cell(pair['without'])} {as_asked}, {pair['n']} of {pair['of']} questions"


def control_text(figures: dict[str, Any], control: str) -> str:
    """`0.500 (0.750 unshuffled, 4 of 8 questions)`; the figure alone where the control covers all questions."""
    value, note = (figures.get("controls") or {}).get(control), control_note(figures, control)
    return note if value is None and note else figure_text(value) + (f" ({note})" if note else "")


def scalar_figures(figures: dict[str, Any]) -> dict[str, float | None]:
    """The figures proper of a task by name: no counts, no kinds, no controls."""
    return {
        name: value
        for name, value in figures.items()
        if name not in _NOT_FIGURES and (value is None or isinstance(value, (int, float)))
    }


def figure_text(value: float | None, interval: Sequence[float] | None = None, places: int = 2) -> str:
    """`0.913 [0.89–0.93]`, the interval being the 95 % one; `–` for a figure that does not exist."""
    ends = f" [{interval[0]:.{places}f}–{interval[1]:.{places}f}]" if interval and None not in interval else ""
    return _cell(value) + ends


def counts_text(figures: dict[str, Any]) -> str:
    """`200 questions, 3 failed, 4 not scored`; a headline about some of them only says so."""
    counts = [f"{figures.get('questions', figures.get('n', '?'))} questions"]
    if "questions" in figures:
        counts.append(f"headline over {figures['n']}{of_kind(figures)}")
    if figures.get("failed"):
        counts.append(f"{figures['failed']} failed")
    if figures.get("unscored"):
        counts.append(f"{figures['unscored']} not scored")
    if figures.get("without_subtitles"):
        counts.append(f"{figures['without_subtitles']} without subtitles")
    return ", ".join(counts)


def of_kind(figures: dict[str, Any]) -> str:
    """` of kind direction`, where the headline is about one kind of question."""
    return f" of kind {label(figures['headline_kind'])}" if figures.get("headline_kind") else ""


def lines_of(figures: dict[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """(row label, "figure" | "control" | "kind" | "kind control", value) of one task, in the order of the table."""
    for name, value in scalar_figures(figures).items():
        yield label(name), "figure", value
    for name in control_names(figures):
        yield label(name), "control", (figures.get("controls") or {}).get(name)
    kinds = figures.get("kinds", {})
    for kind, figures_of in kinds.items():
        for place, (name, value) in enumerate((k, v) for k, v in figures_of.items() if k != "n"):
            yield (kind_label(kind, kinds), "kind", value) if place == 0 else (label(name), "kind control", value)


def render_table(results: dict[str, Any]) -> str:
    """The table of all stages: rows are tasks with their controls, columns are stages."""
    stages = results.get("stages", {})
    tasks: dict[str, dict[str, Any]] = {}
    for figures in stages.values():
        for task, of_task in figures.items():
            tasks[task] = of_task
    if not tasks:
        return "no results yet"
    rows: list[tuple[str, list[str]]] = []
    for task, newest in tasks.items():
        rows.append((f"{task} ({newest.get('n', '?')} questions)", [""] * len(stages)))
        values = [list(lines_of(figures.get(task, {}))) for figures in stages.values()]
        kind_now = ""
        for name, role, _ in lines_of(newest):
            kind_now = name if role == "kind" else kind_now
            cells = [_cell(_find(column, name, role, kind_now)) for column in values]
            rows.append((f"  {_INDENT[role]}{name}", cells))
    table = _aligned(["", *(stage.replace("stage", "stage ") for stage in stages)], rows)
    return "\n".join([table, *_notes(tasks)])


def _notes(tasks: dict[str, dict[str, Any]]) -> list[str]:
    """Lines below the table of stages on controls over fewer questions than the headline above them."""
    return [
        f"{task}, {label(control)}: {note}" + (" (newest stage)" if figures["control_pairs"][control]["n"] else "")
        for task, figures in tasks.items()
        for control in control_names(figures)
        if (note := control_note(figures, control))
    ]


def render_figures(results: dict[str, Any]) -> str:
    """The table of a results file: every figure with its 95 % interval, and below each task how fast it went."""
    rows: list[tuple[str, list[str]]] = []
    for task, figures in results["tasks"].items():
        spans = {label(name): span for name, span in (figures.get("intervals") or {}).items()}
        notes = {label(name): control_text(figures, name) for name in control_names(figures)}
        rows.append((f"{task} ({counts_text(figures)})", [""]))
        for name, role, value in lines_of(figures):
            cell = figure_text(value, spans.get(name) if role == "figure" else None)
            if role == "control":
                cell = notes[name]
                if cell.startswith("possible"):
                    name, cell = f"{name}: {cell}", ""
            rows.append((f"  {_INDENT[role]}{name}", [cell]))
    if not rows:
        return "no results yet"
    width = max(len(cells[0]) for _, cells in rows)
    table = _aligned(["", "score"], [(name, [cell and f"{cell:<{width}}"]) for name, [cell] in rows])
    return "\n".join([table, *_speed_lines(results)])


def _speed_lines(results: dict[str, Any]) -> list[str]:
    runs = results.get("provenance", {}).get("tasks", {})
    rows = results.get("samples", [])
    lines = {
        task: speed_line(speed_of(about, [row for row in rows if row["task"] == task])) for task, about in runs.items()
    }
    lines = {task: line for task, line in lines.items() if line}
    width = max(map(len, lines), default=0)
    return ["", "speed", *(f"  {task:<{width}}  {line}" for task, line in lines.items())] if lines else []


_INDENT = {"figure": "", "control": "– ", "kind": "· ", "kind control": "  – "}


def _find(column: list[tuple[str, str, float | None]], name: str, role: str, kind: str) -> float | None:
    """The value of one row in one stage; a kind's control is looked for below that kind."""
    kind_now = ""
    for row_name, row_role, value in column:
        kind_now = row_name if row_role == "kind" else kind_now
        if (row_name, row_role) == (name, role) and (role != "kind control" or kind_now == kind):
            return value
    return None


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _aligned(header: list[str], rows: list[tuple[str, list[str]]]) -> str:
    first = max(len(name) for name, _ in rows)
    widths = [max(len(title), 7) for title in header[1:]]
    lines = [" " * first + "".join(f"  {title:>{w}}" for title, w in zip(header[1:], widths))]
    lines.append("─" * len(lines[0]))
    for name, cells in rows:
        lines.append(f"{name:<{first}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths)))
    return "\n".join(line.rstrip() for line in lines)
