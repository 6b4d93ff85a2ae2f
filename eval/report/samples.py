"""Which answers the page shows, and how one is drawn: what was shown, what was asked, what was said, and the control.

The choice is by rule, not by taste: kinds take turns, and a share of the places goes to wrong answers.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image

from eval.report.pictures import (
    columns_for,
    data_uri,
    is_video,
    is_volume,
    still,
    video_frames,
    volume_slices,
)
from eval.table import label

logger = logging.getLogger(__name__)

Row = dict[str, Any]
SHOWN = 12
PICTURES = 8
WRONG_SHARE = 1 / 3
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def choose(rows: Sequence[Row], number: int = SHOWN) -> list[Row]:
    """`number` rows asked without a control: tasks share the places, within a task kinds take turns, some are wrong."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["control"] is None:
            by_task[row["task"]].append(row)
    chosen: list[Row] = []
    for place, task_rows in enumerate(by_task.values()):
        share = number // len(by_task) + (place < number % len(by_task))
        scored = [row for row in task_rows if row["score"] is not None]
        right = _in_turn([row for row in scored if row["score"] >= 0.5])
        wrong = _in_turn([row for row in scored if row["score"] < 0.5])
        bad = min(len(wrong), max(round(share * WRONG_SHARE), share - len(right)))
        chosen += right[: share - bad] + wrong[:bad]
        if not scored:
            chosen += _in_turn(task_rows)[:share]
    return chosen[:number]


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    """Rows reordered so that kinds take turns, and within a kind pictures that were not shown yet come first."""
    by_kind: dict[str, list[Row]] = defaultdict(list)
    again: dict[str, list[Row]] = defaultdict(list)
    seen = set()
    for row in rows:
        shown = row.get("group")
        (again if shown is not None and shown in seen else by_kind)[row["kind"]].append(row)
        seen.add(shown)
    queues = [by_kind[kind] + again[kind] for kind in dict.fromkeys(row["kind"] for row in rows)]
    return [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]


def card(
    row: Row,
    controls: Sequence[Row],
    video: dict[str, Any] | None = None,
    answers: Sequence[tuple[str, Row]] = (),
    note: str = "",
) -> str:
    """One question as HTML: what was shown and asked, and what was said.

    Args:
        controls: the rows of the same question under each control.
        answers: (who, row) of every model that answered it, where there are several; default: `row` alone.
        note: HTML beside the task's name instead of the kind of question.
    """
    answers = answers or [("", row)]
    gold = ""
    if row["answers"] and any((of_model["score"] or 0.0) < 1.0 for _, of_model in answers):
        gold = f"<b>{escape(short(' / '.join(row['answers'])))}</b></span>"
    beside = f' <span class="soft">instead of {gold}' if gold and len(answers) == 1 else ""
    said = "".join(
        f'{_turns(of_model)}<div class="said">{verdict(of_model, who)}{beside}</div>' for who, of_model in answers
    )
    if gold and not beside:
        said += f'<div class="said"><span class="soft">gold: {gold}</div>'
    foot = "".join(
        f"<div>{escape(label(other['control']))} → {_reply(other)}</div>"
        for other in sorted(controls, key=lambda row: row["control"])
    )
    about = note or ("" if row["kind"] == "all" else escape(label(row["kind"])))
    task = escape(label(row["task"])) + (f", {about}" if about else "")
    where = f"<span>{task}</span><span>{escape(row['id'])}</span>"
    return (
        f'<article class="card">{_shown(row, video)}<div class="words"><div class="where">{where}</div>'
        f'<div class="asked">{escape(short(row["question"], 240))}</div>{said}'
        + (f'<div class="foot">{foot}</div>' if foot else "")
        + "</div></article>"
    )


def verdict(row: Row, who: str = "") -> str:
    """`✓ answer`, with the name of the model before it where there are several, and the score where it is partial."""
    name = f'<span class="who">{escape(who)}</span> ' if who else ""
    if row["error"]:
        return f'{name}<span class="wrong">✗ {escape(short(row["error"], 240))}</span>'
    if row["score"] is None:
        return f'{name}<b>{_reply(row)}</b> <span class="faint">not scored</span>'
    mark = '<span class="right">✓</span>' if row["score"] >= 0.5 else '<span class="wrong">✗</span>'
    part = f' <span class="faint">{row["score"]:.2f}</span>' if 0.0 < row["score"] < 1.0 else ""
    return f"{name}{mark} <b>{_reply(row)}</b>{part}"


def _reply(row: Row) -> str:
    return escape(short(row["output"] or row["error"] or "(nothing)"))


def cards(rows: Sequence[Row], video: dict[str, Any] | None = None) -> list[str]:
    """The chosen answers of a run."""
    controls: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["control"] is not None:
            controls[row["task"], row["id"]].append(row)
    return [card(row, controls[row["task"], row["id"]], video) for row in choose(rows)]


def _turns(row: Row) -> str:
    """What was said between question and answer when an expert was called."""
    turns = row.get("turns") or []
    lines = []
    for turn in turns[1:-1]:
        if turn["role"] == "assistant":
            lines.append(f"<p>model <code>{escape(short(turn['text']))}</code></p>")
        else:
            words = turn["text"].removesuffix(row["question"]).strip()
            lines.append(f"<p>expert: {escape(short(words, 160))}</p>")
    return f'<div class="turns">{"".join(lines)}</div>' if lines else ""


def _shown(row: Row, video: dict[str, Any] | None) -> str:
    """The picture, the frames, the slices of a volume, or the slice with the expert's outline; a note where the file is
    gone."""
    if not row["media"]:
        return ""
    try:
        paths = row["media"][:PICTURES]
        pictures = [picture for path in paths for picture in _pictures(path, row, video)]
    except Exception as error:  # a missing or broken file costs its picture, not the page
        logger.warning("no picture for %s: %s", row["id"], type(error).__name__)  # its words may name a patient's file
        return '<div class="shown">picture not available</div>'
    images = [
        f'<img{" class=crisp" if max(picture.size) < 300 else ""} alt="" src="{data_uri(picture)}">'
        for picture in pictures[:PICTURES]
    ]
    if len(images) == 1:
        return f'<div class="shown">{images[0]}</div>'
    columns = columns_for(len(images))
    layout = f"--columns:{columns};--rows:{-(-len(images) // columns)}"
    frames = "".join(f"<span>{image}</span>" for image in images)
    return f'<div class="shown"><div class="frames" style="{layout}">{frames}</div></div>{_more(row)}'


def _more(row: Row) -> str:
    """Says how many pages of a long document the card leaves out."""
    left = len(row["media"]) - PICTURES
    return f'<div class="more">and {left} more pictures</div>' if left > 0 else ""


def _pictures(path: str, row: Row, video: dict[str, Any] | None) -> list[Image.Image]:
    if is_video(path):
        return video_frames(path, video)
    if call := next((call for call in reversed(row.get("calls") or []) if call.get("ok")), None):
        from eval.report.expert_pictures import marked_file
        from eval.report.row_files import expert_file

        found = marked_file(expert_file(row, call.get("file")) or path, call)
        if found.marked or not is_volume(path):
            return [found.marked or found.plain]
    return volume_slices(path) if is_volume(path) else [still(path)]


def short(words: str, most: int = 80) -> str:
    """On one line, and no longer than a card bears."""
    words = _CONTROL.sub("\ufffd", " ".join(words.split()))  # an untrained model writes any byte; HTML allows not all
    return words if len(words) <= most else words[: most - 1] + "…"
