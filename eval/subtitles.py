"""Subtitles of videos: SRT files and LongVideoBench's two JSON forms, and which of them go with which frames."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[,.]\d+)?)"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}")  # <font color="white">, {\an8}


@dataclass(frozen=True)
class Subtitle:
    """A line of speech; `start` and `end` in seconds of the video."""

    start: float
    end: float
    text: str


def seconds(clock: str) -> float:
    """`01:02:03,500` or `02:03.5` in seconds. Raises ValueError for something else."""
    match = re.fullmatch(_CLOCK, clock.strip())
    if not match:
        raise ValueError(f"{clock!r} is no time")
    return _seconds(*match.groups())


def _seconds(hours: str | None, minutes: str, rest: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def read_srt(path: str | Path) -> list[Subtitle]:
    """The subtitles of an SRT file in order of time, mark-up removed, lines joined by a blank, empty ones left out.

    Raises ValueError for a file that is not empty and has no times in it.
    """
    lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    starts = [place for place, line in enumerate(lines) if _TIMING.match(line)]
    if not starts and any(line.strip() for line in lines):
        raise ValueError(f"{path}: no subtitles: there is no line with a time range (00:00:01,000 --> 00:00:02,000)")
    found = []
    for place, following in zip(starts, [*starts[1:], len(lines)]):
        times = _TIMING.match(lines[place]).groups()
        spoken = lines[place + 1 : following]
        if following < len(lines) and spoken and spoken[-1].strip().isdigit():
            spoken = spoken[:-1]  # the number of the next subtitle
        text = " ".join(_TAG.sub("", line).strip() for line in spoken)
        found.append(Subtitle(_seconds(*times[:3]), _seconds(*times[3:]), " ".join(text.split())))
    return sorted((one for one in found if one.text), key=lambda one: (one.start, one.end))


def read_json(path: str | Path, shift: float = 0.0, duration: float | None = None) -> list[Subtitle]:
    """LongVideoBench's subtitles, in order of time.

    Entries are `{"start": "00:00:01.000", "end": …, "line": …}` or `{"timestamp": [1.0, 2.5], "text": …}`.

    Args:
        shift: seconds of the subtitles' clock at which the video begins: short clips come with their source's file.
        duration: of the video, where a subtitle without an end ends.

    Raises ValueError for a file of another form.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8-sig", errors="replace"))
        found = [_from_entry(entry, shift, duration) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no subtitles as LongVideoBench has them: {type(error).__name__}: {error}") from error
    return sorted((one for one in found if one.text), key=lambda one: (one.start, one.end))


def _from_entry(entry: dict[str, Any], shift: float, duration: float | None) -> Subtitle:
    if "timestamp" in entry:
        start, end = entry["timestamp"]
        text = entry["text"]
    else:
        start, end, text = seconds(entry["start"]), seconds(entry["end"]), entry["line"]
    end = float(end) - shift if end is not None else duration if duration is not None else float("inf")
    return Subtitle(float(start) - shift, end, " ".join(str(text).split()))


def on_screen(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[str]:
    """Texts of the subtitles in which one of `times` (seconds) falls, each once, in their order."""
    return [one.text for one in subtitles if any(one.start <= time < one.end for time in times)]


def between_frames(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[int | str]:
    """Frames (their indices) and the subtitles that cover one of them, in order of time.

    LongVideoBench's rule (Wu et al., NeurIPS 2024, `insert_subtitles_into_frames`): a subtitle stands behind the frames
    up to its middle; it is left out where no frame lies within it, one shorter than a second counting as a second long.
    """
    mixed: list[int | str] = []
    shown = 0
    for one in subtitles:
        middle = (one.start + one.end) / 2
        while shown < len(times) and times[shown] <= middle:
            mixed.append(shown)
            shown += 1
        start, end = (one.start, one.end) if one.end - one.start >= 1 else (middle - 0.5, middle + 0.5)
        if any(start < time < end for time in times):
            mixed.append(one.text)
    return [*mixed, *range(shown, len(times))]
