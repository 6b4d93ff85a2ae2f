"""One conversation with experts as a card: the slice, the expert's regions, who said what, and the same under controls.

The pictures are those of the question's own file; what the wrong expert looked at instead stands beside its control.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from html import escape
from typing import Any

from eval.controls import EXPERT_WITHHELD, EXPERT_WRONG
from eval.report.expert_pictures import Marked, marked_file
from eval.report.pictures import data_uri
from eval.report.row_files import expert_file
from eval.report.samples import short, verdict
from eval.table import label

logger = logging.getLogger(__name__)

Row = dict[str, Any]
CONTROLS = {
    EXPERT_WITHHELD: "Control: no expert was offered",
    EXPERT_WRONG: "Control: the expert read another patient’s image",
}
THUMB = 176
MOST_SHOWN = 3


def is_conversation(row: Row) -> bool:
    """Whether a row tells of experts: offered, called or not."""
    return "calls" in row


def expert_card(row: Row, controls: Sequence[Row] = (), answers: Sequence[tuple[str, Row]] = ()) -> str:
    """HTML of one question.

    Args:
        controls: the rows of the same question under each control.
        answers: (who, row) of every model that answered it, where there are several; default: `row` alone.
    """
    answers = answers or [("", row)]
    about = "" if row["kind"] == "all" else f", {escape(label(row['kind']))}"
    where = f"<span>{escape(label(row['task']))}{about}</span><span>{escape(row['id'])}</span>"
    talks = "".join(_named(who, _talk(of_model)) for who, of_model in answers)
    return (
        f'<article class="card talk">{_shown(row)}<div class="words"><div class="where">{where}</div>{talks}'
        + "".join(_control(other) for other in sorted(controls, key=lambda other: str(other["control"])))
        + "</div></article>"
    )


def _named(who: str, talk: str) -> str:
    return (f'<div class="who">{escape(who)}</div>' if who else "") + talk


def _shown(row: Row) -> str:
    """The slice as the model saw it, beside the same slice with the regions, their legend below."""
    if not row["media"]:
        return ""
    call = next((call for call in reversed(row["calls"] or []) if call.get("ok")), None)
    path = expert_file(row, (call or {}).get("file")) or str(row["media"][-1])
    try:
        found = marked_file(path, call)
        others = [] if call else [marked_file(str(other), None) for other in row["media"][:-1][:MOST_SHOWN]]
    except Exception as error:  # a missing or broken file costs its picture, not the page
        logger.warning("no picture for %s: %s", row["id"], type(error).__name__)
        return '<div class="shown">picture not available</div>'
    if row["calls"] and call is None:
        found.note = "no regions: no call succeeded"
    seen = "what the model saw" if path in row["media"] else "what the expert read"
    caption = ", ".join(filter(None, [seen, found.place]))
    pictures = [*(_figure(other, other.place, False) for other in others), _figure(found, caption, False)]
    if left := len(row["media"]) - 1 - len(others):
        found.note = ". ".join(filter(None, [found.note, f"{left} more picture{'s' * (left != 1)} shown"]))
    if found.marked is not None:
        pictures.append(_figure(found, f"what {escape(call['name'])} marked", True))
    return f'<div class="slices">{"".join(pictures)}</div>{_legend(found, str((call or {}).get("text") or ""))}'


def _figure(found: Marked, caption: str, marked: bool, side: int = 512) -> str:
    image = found.marked if marked else found.plain
    return f'<figure><img alt="" src="{data_uri(image, side)}"><figcaption>{caption}</figcaption></figure>'


def _legend(found: Marked, said: str) -> str:
    """Each label's colour and name, and what the expert said of them."""
    marks = "".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for colour, name in found.legend)
    words = [f"“{short(said, 160)}”"] if marks and said else []
    notes = "".join(f'<span class="faint">{escape(note)}</span>' for note in [*words, found.note] if note)
    return f'<div class="labels">{marks}{notes}</div>' if marks or notes else ""


def _talk(row: Row) -> str:
    """Who said what: the question, the calls with their results, and the answer with its verdict."""
    turns = row.get("turns") or []
    said = [_line("user", f'<span class="asked">{escape(short(row["question"], 240))}</span>')]
    if offered := _offered(turns, row):
        foreign = ", ".join(map(str, row.get("offer") or []))
        note = f"; made for another modality: {escape(foreign)}" if foreign else ""
        said.append(_line("", f"experts on offer: {offered}{note}", "note"))
    calls = iter(row["calls"] or [])
    for turn in turns[1:-1]:
        if turn["role"] == "assistant":
            said.append(_line("model", f"<code>{escape(short(turn['text'], 200))}</code>"))
        else:
            words = turn["text"].removesuffix(row["question"]).strip()
            said.append(_result(words, next(calls, {})))
    said.append(_line("model", _answer(row)))
    return f'<div class="dialogue">{"".join(said)}</div>'


def _result(words: str, call: Row) -> str:
    """What came back from a call: an error in ochre, and the seconds it took."""
    failed = call.get("ok") is False or words.startswith("error:")
    who = str(call.get("name") or "") or "session"
    took = f"<small>{_seconds(call['seconds'])}</small>" if isinstance(call.get("seconds"), (int, float)) else ""
    return _line(who, f"{escape(short(words, 400))}{took}", "failed" if failed else "expert")


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _answer(row: Row) -> str:
    gold = ""
    if row["answers"] and (row["score"] or 0.0) < 1.0:
        gold = f' <span class="soft">instead of <b>{escape(short(" / ".join(row["answers"])))}</b></span>'
    return verdict(row) + gold


def _offered(turns: Sequence[Row], row: Row) -> str:
    """The cards in the first user turn, as they stand there."""
    first = next((str(turn["text"]) for turn in turns if turn["role"] == "user"), "")
    lines = [line.strip() for line in first.removesuffix(row["question"]).splitlines()]
    return " ".join(f"<code>{escape(short(line, 90))}</code>" for line in lines if line.startswith("<"))


def _control(row: Row) -> str:
    """The same question with the evidence taken away: said plainly, so that nobody takes it for the model at work."""
    title = CONTROLS.get(row["control"], f"Control: {label(str(row['control']))}")
    calls = row.get("calls") or []
    said = [_result(str(call.get("text") or ""), call) for call in calls] if row["control"] == EXPERT_WRONG else []
    if row["control"] == EXPERT_WRONG and not calls:
        said = [_line("", "the model asked no expert", "note")]
    dialogue = f'<div class="dialogue">{"".join(said)}{_line("model", _answer(row))}</div>'
    return f'<div class="control">{_other(row)}<div><b>{escape(title)}</b>{dialogue}</div></div>'


def _other(row: Row) -> str:
    """The other patient's slice with its regions, small."""
    call = next((call for call in row.get("calls") or [] if call.get("ok")), None)
    path = expert_file(row, (call or {}).get("file"))
    if row["control"] != EXPERT_WRONG or path is None:
        return ""
    try:
        found = marked_file(path, call)
    except Exception as error:  # as above
        logger.warning("no picture for the control of %s: %s", row["id"], type(error).__name__)
        return ""
    return f'<img alt="another patient’s image" src="{data_uri(found.marked or found.plain, THUMB)}">'


def _line(who: str, words: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f"<p{kind}><span>{escape(who)}</span><span>{words}</span></p>"
