"""The parts of the page about results files, each a function from the files to HTML; empty where nothing is to show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from eval.report import result_tables as tables
from eval.report.charts import SHAPES, Ring, ticks
from eval.report.expert_card import is_conversation
from eval.report.notice import banner
from eval.report.parts import FAINT_GAP, control_marks, facts, fold, legend, section, table, two_sizes
from eval.report.result_charts import COLOURS, NARROW, WIDE, Spent, Whisker, histogram, spent_bars, whiskers
from eval.report.result_provenance import run_facts, task_facts
from eval.report.samples import card, choose
from eval.results_file import Result
from eval.table import LOWER_IS_BETTER, control_text, label, scalar_figures

CARDS = 24
LEAST_CARDS = 3
_INTERVALS = (
    "Whiskers are 95 % intervals: how far a figure would move on other samples of the same kind. Questions about one "
    "image or video are resampled together."
)


def header(results: Sequence[Result]) -> str:
    """Which models, which tasks."""
    keys = tables.task_keys(results)
    asked = sum(len(result.asked(key)) for result in results for key in keys)
    failed = sum(bool(row.get("error")) for result in results for key in keys for row in result.asked(key))
    blind = [result.label for result in results if result.provenance.get("blind")]
    *most, last = [result.label for result in results]
    title = f"{', '.join(most)} and {last}" if most else last
    words = f"{len(keys)} task{'s' * (len(keys) != 1)}, {asked} answers"
    words += f", of which {failed} failed and count as wrong" if failed else ", none failed"
    unscored = sum(bool(row.get("unscored")) for result in results for key in keys for row in result.asked(key))
    words += f", {unscored} not scored" if unscored else ""
    words += f". Asked without pictures and videos: {', '.join(blind)}" if blind else ""
    return (
        f'<header>{banner(results)}<p class="overline">radio-vlm, evaluation</p><h1>{escape(title)}</h1>'
        f'<p class="lede">{escape(words)}.</p></header>'
    )


def headline(results: Sequence[Result]) -> str:
    """The plot of figures with whiskers: all figures of one model, the headline of several side by side."""
    plots: dict[tuple[float, float], list[tuple[str, list[Whisker]]]] = defaultdict(list)
    for task in tables.task_keys(results):
        for title, rows in _groups(results, task):
            values = [w.value for w in rows if w.value is not None]
            top = 1.0 if max(values, default=0.0) <= 1.0 else ticks(max(values) * 1.3)[-1]
            plots[0.0, top].append((title, rows))
    drawings = "".join(
        two_sizes(*(whiskers(groups, *ends, name="Figures with 95 % intervals", layout=of) for of in (WIDE, NARROW)))
        for ends, groups in plots.items()
    )
    marks: list[tuple[str, str]] = []
    if len(results) > 1:
        marks = [(f"s{place % COLOURS + 1}", escape(result.label)) for place, result in enumerate(results)]
    all_figures = [figures for result in results for figures in result.tasks.values()]
    controls = dict.fromkeys(name for figures in all_figures for name in figures.get("controls") or {})
    if controls:
        marks = marks or [("", "as asked")]
        marks += control_marks(controls)
    if len(results) == 1 and any(name in figures for figures in all_figures for name in LOWER_IS_BETTER):
        marks = [*(marks or [("", "higher is better")]), ("lower", "lower is better")]
    return section("Figures", _INTERVALS, drawings + (legend(*marks) if marks else ""))


def _groups(results: Sequence[Result], task: str) -> list[tuple[str, list[Whisker]]]:
    if len(results) == 1:
        [result] = results
        figures = result.tasks[task]
        names = list(scalar_figures(figures))
        return [
            (
                f"{task}, {tables.asked_words(results, task)}",
                [_whisker(result, task, n, label(n), 0, n == names[0]) for n in names],
            )
        ]
    first = next(name for r in results if task in r.tasks for name in scalar_figures(r.tasks[task]))
    rows = [
        _whisker(result, task, first, result.label, place, True)
        for place, result in enumerate(results)
        if first in result.tasks.get(task, {})
    ]
    return [(f"{task}, {label(first)}, {tables.asked_words(results, task)}", rows)]


def _whisker(result: Result, task: str, figure: str, name: str, series: int, rings: bool) -> Whisker:
    figures = result.tasks[task]
    found = (figures.get("controls") or {}) if rings else {}
    controls = [Ring(f"{label(k)} {control_text(figures, k)}", v, SHAPES.get(k, "")) for k, v in found.items()]
    interval = tables.interval_of(result, task, figure)
    return Whisker(name, figures.get(figure), interval, controls, series, figure in LOWER_IS_BETTER)


def figures(results: Sequence[Result]) -> str:
    lede = "In brackets the 95 % interval. Ochre: the same questions with the evidence taken away." + (
        f" Best to read differences from a paired comparison: <code>{escape(_compare(results))}</code>"
        if len(results) > 1
        else ""
    )
    return section("All figures", lede, _html(tables.figures_table(results)))


def _compare(results: Sequence[Result]) -> str:
    return f"python eval/compare.py {results[0].path.name} {results[1].path.name}"


def kinds(results: Sequence[Result]) -> str:
    return section("By kind of question", "", _html(tables.kinds_table(results)))


def distributions(results: Sequence[Result]) -> str:
    """A histogram of every headline score that is more than right or wrong."""
    drawn = []
    for task in tables.task_keys(results):
        for place, result in enumerate(results):
            rows = [row for row in result.asked(task) if row["score"] is not None]
            if rows and not tables.is_binary(rows):
                caption = f"<b>{escape(task)}</b>, {escape(label(next(iter(scalar_figures(result.tasks[task])))))}"
                caption += f", {escape(result.label)}" if len(results) > 1 else ""
                drawing = histogram([row["score"] for row in rows], place)
                drawn.append(f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>")
    lede = "How many answers got which score: a mean of one half may be halves, or nothing and everything."
    return section("Distribution of scores", lede, f'<div class="grid">{"".join(drawn)}</div>' if drawn else "")


def answers(results: Sequence[Result]) -> str:
    """Failures and what could not be judged: counted, named, with reasons."""
    counts = _html(tables.answers_table(results), plain=True)
    lede = (
        "Failed answers and unreadable choices count as wrong; what nothing here can judge is in no figure. An answer "
        "cut at the limit of its length may be a right one that came too late."
    )
    items = "".join(_reason(reason, len(results) > 1) for reason in tables.reasons(results))
    body = counts + (FAINT_GAP + f'<ul class="notes">{items}</ul>' if items else "")
    return section("What went wrong", lede, body)


def _reason(reason: tables.Reason, several: bool) -> str:
    who = f", {', '.join(reason.models)}" if several else ""
    return (
        f"<li><b>{len(reason.ids)} {escape(reason.what)}</b>, {escape(reason.task)}{escape(who)}"
        f"<p>{escape(reason.reason)}</p><small>{escape(reason.named)}</small></li>"
    )


def speed(results: Sequence[Result]) -> str:
    timed = tables.speeds(results)
    if not timed:
        return ""
    bars = [
        Spent(
            result.label if len(results) > 1 else task, task, s.encode_seconds / s.requests,
            s.prefill_seconds / s.requests if s.prefill_known else None, s.decode_seconds / s.requests,
        )
        for task, result, s in timed
    ]  # fmt: skip
    marks = [("grey", "reading and encoding, in other threads")]
    if any(bar.prefill is not None for bar in bars):
        marks += [("s2", "prefill, vision encoder included"), ("", "decode")]
    if any(bar.prefill is None for bar in bars):
        marks.append(("s3", "prefill and decode, not told apart"))
    lede = (
        "Seconds of a question by phase, and rates of one process. Media are read and encoded beside the model, so the "
        "grey part is work, not waiting. Tokens are those of an average prompt, controls included."
    )
    drawing = two_sizes(*(spent_bars(bars, layout) for layout in (WIDE, NARROW)))
    return section("Speed", lede, drawing + legend(*marks) + FAINT_GAP + _html(tables.speed_table(results), plain=True))


def samples(results: Sequence[Result]) -> str:
    """Questions with pictures, right and wrong ones by rule (`eval.report.samples.choose`), every model's answer."""
    keys = tables.task_keys(results)
    share = max(LEAST_CARDS, CARDS // max(len(keys), 1))
    cards = []
    for task in keys:
        first = next(result for result in results if task in result.tasks)
        by_model = [(r.label, {row["id"]: row for row in r.asked(task)}) for r in results if task in r.tasks]
        under_control: dict[str, list] = defaultdict(list)
        for row in first.rows(task):
            if row["control"] is not None and len(results) == 1:
                under_control[row["id"]].append(row)
        for row in choose([row for row in first.asked(task) if not is_conversation(row)], share):
            said = [(who, rows[row["id"]]) for who, rows in by_model if row["id"] in rows] if len(results) > 1 else ()
            cards.append(card(row, under_control[row["id"]], first.video(task), said))
    lede = (
        "Drawn by rule: kinds of question take turns, and a third of the places is kept for wrong answers where there "
        f"are any{' (of the first model)' if len(results) > 1 else '; in ochre, the answer under a control'}."
    )
    return section("Answers", lede, f'<div class="cards">{"".join(cards)}</div>' if cards else "")


def provenance(results: Sequence[Result]) -> str:
    """A fold for every file, and one for every task in it."""
    folds = []
    for result in results:
        folds.append(
            fold(f"{result.label}: {result.path.name}, sha256 {result.digest[:16]}…", facts(run_facts(result.data)))
        )
        folds += [fold(f"{result.label}: {task}", facts(task_facts(result.data, task))) for task in result.tasks]
        template = (result.provenance.get("model") or {}).get("chat_template")
        if template:
            folds.append(fold(f"{result.label}: chat template", f"<pre>{escape(template)}</pre>"))
    return section("Small print", "What is needed to repeat a score, or to doubt it.", "".join(folds))


def _html(data: tables.Table, plain: bool = False) -> str:
    """A table of words as HTML."""
    rows = []
    for kind, cells in zip(data.kinds, data.rows):
        task = kind == "task"
        rows.append([f"{escape(cells[0])}<small>{escape(cells[1])}</small>"] if task else [_cell(c) for c in cells])
    size = "dense" if len(data.head) > 5 else "compact" if len(data.head) < 4 else ""
    body = table([escape(cell) for cell in data.head], rows, data.kinds, plain) if rows else ""
    return f'<div class="{size}">{body}</div>' if body and size else body


def _cell(text: str) -> str:
    """`0.913 [0.89–0.93]` with the interval in small, and so is the note on a control."""
    for opening, closing in ((" [", "]"), (" (", " questions)")):
        value, bracket, rest = text.partition(opening)
        if bracket and rest.endswith(closing):
            return f"{escape(value)}<small>{escape(rest[:-1])}</small>"
    return escape(text)
