"""The parts of a page about tasks with experts, each a function from the files to HTML; empty where nothing is to show.

What the expert is worth, what was confused with what, how far stated probabilities can be believed, and conversations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from eval.report import confusion, expert_tables
from eval.report.calibration_chart import reliability
from eval.report.confusion import Confusion
from eval.report.expert_card import expert_card, is_conversation
from eval.report.notice import medical_tasks
from eval.report.parts import section, table, two_sizes
from eval.report.result_charts import NARROW, WIDE, Whisker, colour, whiskers
from eval.report.result_tables import asked_words, task_keys
from eval.report.samples import choose
from eval.results_file import Result, Row
from eval.table import figure_text, label

OVER = ((1, ""), (3, "answer is yes"), (3, "answer is no"), (2, ""))
CARDS, LEAST_CARDS, FAILED_CARDS = 12, 4, 2


def worth(results: Sequence[Result]) -> str:
    """Accuracy with, without and with the wrong expert, with intervals."""
    groups, notes, seen = [], [], set()
    for one in expert_tables.worth(results):
        who = f", {one.result.label}" if len(results) > 1 else ""
        most = max(share.n for share in one.shares)
        title = f"{label(one.task)}{who}, {most} {one.about}"
        rows = [_whisker(share, most) for share in one.shares]
        groups.append((title, rows))
        said = expert_tables.disagreement(one.result, one.task)
        if said and (one.result.label, one.task) not in seen:
            seen.add((one.result.label, one.task))
            notes.append(f"{label(one.task)}{who}: {said}.")
    if not groups:
        return ""
    drawing = two_sizes(*(whiskers(groups, name="With and without the expert", layout=of) for of in (WIDE, NARROW)))
    lede = (
        "The same questions three times: with the expert on call, with none on offer, and with an expert that reads "
        "another patient’s image. A model that uses its expert falls in the last two; where no expert is wanted, all "
        "three should be equal. Whiskers: 95 %, clustered by image."
    )
    said = "".join(f'<p class="soft drawn">{escape(words)}</p>' for words in notes)
    return section("With and without the expert", lede, drawing + said)


def _whisker(share: expert_tables.Share, most: int) -> Whisker:
    name = expert_tables.NAMES[share.control] + (f" ({share.n} of them)" if share.n < most else "")
    return Whisker(name, share.value, share.interval, ink="var(--control)" if share.control else "")


def confusions(results: Sequence[Result]) -> str:
    """Calls, yes/no questions and small sets of answers, for every medical task."""
    parts = []
    for task in medical_tasks(results):
        for result in (one for one in results if task in one.tasks):
            rows = result.asked(task)
            who = f", {result.label}" if len(results) > 1 else ""
            body = ""
            if (of_calls := confusion.calls(rows)) is not None:
                body += _matrix(of_calls, "Which expert was called", "wanted", "called")
            sets = "".join(_matrix(one, label(one.about), "answer", "said") for one in confusion.answer_sets(rows))
            body += f'<div class="matrices">{sets}</div>' if sets else ""
            body += _yes_no(confusion.yes_no(rows))
            if body:
                words = f"<small>{escape(asked_words([result], task))}</small>"
                parts.append(f"<h3>{escape(label(task) + who)}{words}</h3>{body}")
    lede = (
        "Rows are what was right, columns what was said; shares are of the row. Green cells are right ones. An answer "
        "that is neither yes nor no counts as wrong in both; sensitivity and specificity have Wilson’s 95 % intervals."
    )
    return section("What was confused with what", lede, "".join(parts))


def _matrix(found: Confusion, title: str, rows: str, columns: str) -> str:
    """Counts shaded by their share of the row."""
    head = f"<tr><th>{escape(rows)} ↓ &nbsp;{escape(columns)} →</th>"
    head += "".join(f"<th>{escape(said)}</th>" for said in found.said) + "</tr>"
    body = ""
    for place, gold in enumerate(found.gold):
        cells = "".join(_cell(found, place, column) for column in range(len(found.said)))
        body += f"<tr><th>{escape(gold)}</th>{cells}</tr>"
    return (
        f'<figure class="matrix"><figcaption>{escape(title)}</figcaption><div class="scroll"><table>'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div></figure>"
    )


def _cell(found: Confusion, place: int, column: int) -> str:
    count, share = found.counts[place][column], found.share(place, column)
    kind = "hit" if found.right(place, column) else "miss"
    if not count:
        return f'<td class="{kind} zero">0</td>'
    return f'<td class="{kind}" style="--share:{share:.2f}">{count}<small>{100 * share:.0f} %</small></td>'


def _yes_no(found: Sequence[confusion.YesNo]) -> str:
    if not found:
        return ""
    data = expert_tables.yes_no_table(found)
    head = [*data.head[:1], "said yes", "no", "neither", "said yes", "no", "neither", *data.head[7:]]
    rows = [[_small(cell) for cell in cells] for cells in data.rows]
    drawn = table([escape(cell) for cell in head], rows)
    over = "".join(f'<th colspan="{span}">{words}</th>' for span, words in OVER)
    drawn = drawn.replace("<thead>", f'<thead><tr class="over">{over}</tr>', 1)
    return f'<figure class="yesno"><figcaption>Yes or no</figcaption>{drawn}</figure>'


def _small(text: str) -> str:
    value, bracket, ends = text.partition(" [")
    return f"{escape(value)}<small>{escape(ends[:-1])}</small>" if bracket else escape(text)


def calibration(results: Sequence[Result]) -> str:
    """A reliability diagram for every task whose figures hold one."""
    drawn = []
    for task in task_keys(results):
        for place, result in enumerate(results):
            found = expert_tables.calibration_of(result, task)
            if found is None:
                continue
            figures = result.tasks[task]
            named = [("ece", "ECE"), ("brier", "Brier"), ("auroc", "AUROC")]
            words = [
                f"{name} {figure_text(figures[key], places=3)}" for key, name in named if figures.get(key) is not None
            ]
            number = sum(int(one.get("count") or 0) for one in found["bins"])
            if found.get("mass") is not None:
                words.append(f"p(yes) + p(no) {found['mass']:.2f} on average")
            who = f", {escape(result.label)}" if len(results) > 1 else ""
            caption = f"<b>{escape(label(task))}</b>{who}, {number} answers"
            caption += f"<br>{escape(', '.join(words))}" if words else ""
            drawing = reliability(found["bins"], colour(place))
            drawn.append(f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>")
    lede = (
        "How often yes was right, against the probability that the model gave to yes. On the dashed line a "
        "probability means what it says; below it the model is too sure of yes. Area: number of answers."
    )
    return section("Calibration", lede, f'<div class="grid">{"".join(drawn)}</div>' if drawn else "")


def conversations(results: Sequence[Result], number: int = CARDS) -> str:
    """Conversations with experts, drawn by the rule of all answers, and a few in which a call failed."""
    keys = [key for key in task_keys(results) if any(is_conversation(row) for r in results for row in r.asked(key))]
    share = max(LEAST_CARDS, number // max(len(keys), 1))
    cards = []
    for task in keys:
        first = next(result for result in results if task in result.tasks)
        by_model = [(r.label, {row["id"]: row for row in r.asked(task)}) for r in results if task in r.tasks]
        under_control: dict[str, list[Row]] = defaultdict(list)
        for row in first.rows(task):
            if row["control"] is not None and len(results) == 1:
                under_control[row["id"]].append(row)
        for row in _chosen([row for row in first.asked(task) if is_conversation(row)], share):
            said = [(who, rows[row["id"]]) for who, rows in by_model if row["id"] in rows] if len(results) > 1 else ()
            cards.append(expert_card(row, under_control[row["id"]], said))
    return conversation_section(cards)


def conversation_section(cards: Sequence[str]) -> str:
    """The cards under their title."""
    lede = (
        "Left the slice, right the regions that the expert marked, each label in the colour it has everywhere. A call "
        "is what the model wrote; ochre is a call that failed, or a control. Regions are drawn by running the expert "
        "again where it is a rule without weights."
    )
    return section("Conversations with experts", lede, f'<div class="talks">{"".join(cards)}</div>' if cards else "")


def _chosen(rows: Sequence[Row], number: int) -> list[Row]:
    chosen = choose(rows, number)
    failed = [row for row in rows if any(call.get("ok") is False for call in row["calls"] or [])]
    taken = {row["id"] for row in chosen}
    return chosen + [row for row in failed if row["id"] not in taken][:FAILED_CARDS]
