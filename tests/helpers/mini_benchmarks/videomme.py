"""Mini Video-MME (`lmms-eval/Video-MME`): three videos in two archives, subtitles for two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._clips import clip, zipped
from tests.helpers.mini_benchmarks._hub_copy import HubCopy
from tests.helpers.mini_benchmarks._registry import mini

REPO = "lmms-eval/Video-MME"
COLUMNS = ("video_id", "duration", "domain", "sub_category", "url", "videoID", "question_id", "task_type", "question")
SRT = """1
00:00:00,000 --> 00:00:03,000
<font color="white" size=".72c">new at six</font>

2
00:00:03,000 --> 00:00:03,900
<font color="white" size=".72c">the tree is decorated</font>

3
00:00:04,000 --> 00:00:08,000
<font color="white" size=".72c">with candles and apples</font>
"""


def videomme_row(video: str, number: int, duration: str, domain: str, task_type: str, answer: str) -> dict[str, Any]:
    youtube = {"001": "fFjv93ACGo8", "002": "N1cdUjctpG8", "601": "-lN.Dm7Kbo4"}[video]
    return {
        "video_id": video,
        "duration": duration,
        "domain": domain,
        "sub_category": "Humanity & History",
        "url": f"https://www.youtube.com/watch?v={youtube}",
        "videoID": youtube,
        "question_id": f"{video}-{number}",
        "task_type": task_type,
        "question": f"Question {video}-{number}?",
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are of the same number."],
        "answer": answer,
    }


@mini("videomme")
@mini("videomme_subtitles")
def write_videomme(root: Path) -> None:
    from datasets import Value

    rows = [
        videomme_row("001", 1, "short", "Knowledge", "Counting Problem", "C"),
        videomme_row("001", 2, "short", "Knowledge", "Information Synopsis", "A"),
        videomme_row("002", 1, "short", "Multilingual", "Counting Problem", "B"),
        videomme_row("601", 1, "long", "Knowledge", "OCR Problems", "D"),
    ]
    copy = HubCopy(root, REPO)
    features = dict.fromkeys((*COLUMNS, "answer"), Value("string")) | {"options": [Value("string")]}
    copy.table(rows, features, split="test", config="videomme")
    copy.file("videos_chunked_01.zip", zipped({"data/": "", "data/fFjv93ACGo8.mp4": clip(8)}))
    files = {"data/N1cdUjctpG8.mp4": clip(4), "data/-lN.Dm7Kbo4.mkv": clip(4)}
    copy.file("videos_chunked_02.zip", zipped(files))
    copy.file("subtitle.zip", zipped({"subtitle/fFjv93ACGo8.srt": SRT, "subtitle/N1cdUjctpG8.srt": ""}))
