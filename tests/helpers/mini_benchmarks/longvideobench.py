"""Mini LongVideoBench (`longvideobench/LongVideoBench`): videos in a tar in two pieces, both forms of subtitles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._clips import clip, tarred
from tests.helpers.mini_benchmarks._hub_copy import HubCopy
from tests.helpers.mini_benchmarks._registry import mini

REPO = "longvideobench/LongVideoBench"
TEXTS = ("video_id", "id", "video_path", "subtitle_path", "question", "question_category", "topic_category")
NUMBERS = {"correct_choice": "int64", "duration_group": "int64", "duration": "float64"}
BY_CLOCK = [  # a clip cut out of its source at second 10
    {"start": "00:00:10.100", "end": "00:00:11.900", "line": "a man enters"},
    {"start": "00:00:13.000", "end": "00:00:15.900", "line": "he sits down"},
    {"start": "00:00:40.000", "end": "00:00:41.000", "line": "after the clip"},
]
BY_NUMBER = [{"timestamp": [0.2, 1.6], "text": "hello"}, {"timestamp": [1.7, None], "text": "goodbye"}]


def lvb_row(video: str, number: int, options: list[str], choice: int, group: int, category: str) -> dict[str, Any]:
    padded = [*options, *["N/A"] * (5 - len(options))]
    return {
        "video_id": video,
        "id": f"{video}_{number}",
        "video_path": f"{video}.mp4",
        "subtitle_path": f"{video}_en.json",
        "question": f"What is in {video}, {number}?",
        "question_category": category,
        "topic_category": "KG-Knowledge-Geography",
        **{f"option{place}": option for place, option in enumerate(padded)},
        "correct_choice": choice,
        "duration_group": group,
        "duration": {"86CxyhFV9MI": 8.0, "_vJ4a8aAQpE": 4.0, "zz": 4.0}[video],
        "starting_timestamp_for_subtitles": 10.0 if video == "86CxyhFV9MI" else 0.0,
    }


@mini("longvideobench")
@mini("longvideobench_interleaved")
def write_longvideobench(root: Path) -> None:
    from datasets import Value

    rows = [
        lvb_row("86CxyhFV9MI", 0, ["a hat", "a coat", "a shoe", "a sock", "a glove"], 4, 15, "S2E"),
        lvb_row("86CxyhFV9MI", 1, ["one", "two", "three"], 1, 15, "T3E"),
        lvb_row("_vJ4a8aAQpE", 0, ["red", "blue"], 0, 3600, "S2E"),
        lvb_row("zz", 0, ["up", "down"], 0, 3600, "T3E"),
    ]
    features = dict.fromkeys((*TEXTS, *(f"option{place}" for place in range(5))), Value("string"))
    features |= {name: Value(kind) for name, kind in NUMBERS.items()}
    features |= {"starting_timestamp_for_subtitles": Value("float64")}
    copy = HubCopy(root, REPO)
    copy.table(rows, features, split="validation")
    videos = {"videos/86CxyhFV9MI.mp4": clip(8), "videos/_vJ4a8aAQpE.mp4": clip(4), "videos/zz.mp4": clip(4)}
    whole = tarred(videos)
    cut = len(whole) // 2 + 7  # in the middle of a video, of a block, of anything
    copy.file("videos.tar.part.aa", whole[:cut])
    copy.file("videos.tar.part.ab", whole[cut:])
    subtitles = {"86CxyhFV9MI": BY_CLOCK, "_vJ4a8aAQpE": BY_NUMBER}
    copy.file("subtitles.tar", tarred({f"subtitles/{v}_en.json": json.dumps(lines) for v, lines in subtitles.items()}))
