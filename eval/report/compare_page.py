"""The page of a comparison: differences with whiskers around zero, warnings, and the changed samples with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from eval.comparison import Change, Comparison, TaskComparison
from eval.comparison_text import HEAD, all_warnings, difference, figure_rows, named_side, verdict
from eval.report.charts import ticks
from eval.report.notice import banner
from eval.report.parts import document, facts, fold, section, table, two_sizes
from eval.report.result_charts import NARROW, WIDE, Whisker, whiskers
from eval.report.result_provenance import run_facts
from eval.report.samples import card
from eval.table import label

CARDS = 36


def compare_page(comparison: Comparison) -> str:
    """The page's HTML."""
    a, b = comparison.a, comparison.b
    body = [_header(comparison), _warnings(comparison), _differences(comparison), _table(comparison)]
    share = max(6, CARDS // len(comparison.tasks))
    body += [_changed(task, comparison, share) for task in comparison.tasks]
    folds = [
        fold(f"{name}: {r.path}, sha256 {r.digest[:16]}…", facts(run_facts(r.data))) for name, r in (("A", a), ("B", b))
    ]
    body.append(section("Small print", "", "".join(folds)))
    return document(f"{b.label} against {a.label}", "".join(body))


def _header(comparison: Comparison) -> str:
    a, b = comparison.a, comparison.b
    lines = [f"{task.key}: {difference(task.estimate)}, {verdict(task.estimate)}" for task in comparison.tasks]
    words = f"A is {named_side(a, b)}, B is {named_side(b, a)}. "
    words += f"{lines[0]}." if len(lines) == 1 else f"{len(lines)} tasks in common."
    return (
        f'<header>{banner([a, b])}<p class="overline">radio-vlm, comparison</p>'
        f"<h1>{escape(b.label)} against {escape(a.label)}</h1>"
        f'<p class="lede">{escape(words)}</p></header>'
    )


def _warnings(comparison: Comparison) -> str:
    found = all_warnings(comparison)
    items = "".join(f"<li>{escape(words)}</li>" for words in found)
    return (
        section(
            "Mind the difference",
            "These runs differ in more than the model.",
            f'<ul class="notes warnings">{items}</ul>',
        )
        if found
        else ""
    )


def _differences(comparison: Comparison) -> str:
    rows = []
    for task in comparison.tasks:
        e = task.estimate
        rows.append(Whisker(task.key, e.value, None if e.low is None else (e.low, e.high)))
    ends = [abs(v) for w in rows for v in (w.value, *(w.interval or ())) if v is not None]
    reach = max([0.05, *ends])
    step = ticks(reach)[1]
    reach = -(-reach // step) * step
    name = "Differences with 95 % intervals"
    drawings = [whiskers([("", rows)], -reach, reach, name, layout, signed=True) for layout in (WIDE, NARROW)]
    lede = (
        "B − A over the samples that both answered, with 95 % intervals from resampling images or videos, both models "
        "together. An interval that holds zero says that the difference may be chance."
    )
    return section("Differences", lede, two_sizes(*drawings))


def _table(comparison: Comparison) -> str:
    rows = []
    for task in comparison.tasks:
        for key, figure, a, b, change, better, worse, equal, words in figure_rows(task):
            value, _, interval = change.partition(" [")
            change = f"{value}<small>{interval.rstrip(']')}</small>"
            up, down = f'<span class="up">{better}</span>', f'<span class="down">{worse}</span>'
            rows.append([escape(key), escape(figure), a, b, change, up, down, equal, escape(words)])
    lede = (
        "Better, worse, equal: samples whose score rose, fell or stayed. Of further figures only the direction is "
        "said: some are better when they are lower."
    )
    body = table(["", *HEAD[1:4], "B − A", *HEAD[5:]], rows, plain=True)
    return section("In figures", lede, f'<div class="roomy">{body}</div>')


def _changed(task: TaskComparison, comparison: Comparison, most: int) -> str:
    shown = task.changed[:most]
    cards = "".join(_card(change, comparison, task.key) for change in shown)
    counts: dict[str, int] = {}
    for change in task.changed:
        counts[change.kind] = counts.get(change.kind, 0) + 1
    lede = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    lede += f", of {len(task.changed) + task.equal} answers. Largest changes first, losses before gains."
    left = task.changed[most:]
    more = ", ".join(str(change.a["id"]) for change in left)
    rest = fold(f"{len(left)} more", f'<p class="soft">{escape(more)}</p>') if left else ""
    return section(
        f"Changed: {label(task.key)}", escape(lede), f'<div class="cards">{cards}</div>{rest}' if cards else ""
    )


def _card(change: Change, comparison: Comparison, task: str) -> str:
    kind = "up" if change.after > change.before else "down"
    note = f'<span class="{kind}">{escape(change.kind)}</span>'
    answers: Sequence = (("A", _scored(change.a, change.before)), ("B", _scored(change.b, change.after)))
    return card(change.a, (), comparison.a.video(task), answers, note)


def _scored(row: dict, score: float) -> dict:
    """The row with the score that is compared, which `--metric` may have chosen."""
    return {**row, "score": score}
