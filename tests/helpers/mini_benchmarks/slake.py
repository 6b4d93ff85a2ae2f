"""Mini SLAKE (`BoKelvin/SLAKE`): `test.json` in both languages beside `imgs.zip`."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini


def slake_row(qid: int, image: int, question: str, answer: str, answer_type: str, **other: Any) -> dict[str, Any]:
    return {
        "img_id": image,
        "img_name": f"xmlab{image}/source.jpg",
        "question": question,
        "answer": answer,
        "q_lang": "en",
        "location": "Lung",
        "modality": "CT",
        "answer_type": answer_type,
        "base_type": "vqa",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
        "content_type": "Organ",
        **other,
    }


ROWS = [
    slake_row(11934, 102, "What modality is used to take this image?", "X-Ray", "OPEN", content_type="Modality"),
    slake_row(11936, 102, "What is the main organ in the image?", "Lung, Spinal Cord", "OPEN"),
    slake_row(11938, 102, "Does the picture contain liver?", "No", "CLOSED"),
    slake_row(11944, 103, "Which is bigger,lung or heart?", "Lung", "CLOSED", content_type="Size", modality="MRI"),
    slake_row(12946, 103, "图中包含肝脏吗？", "包含", "CLOSED", q_lang="zh"),
    slake_row(12947, 103, "这张图片的成像方式是什么？", "核磁共振", "OPEN", q_lang="zh", content_type="Modality"),
]


@mini("slake")
@mini("slake_zh")
def write(root: Path, rows: list[Any] = ROWS, inside: str = "imgs/") -> HubCopy:
    """`inside`: where the archive has its folders."""
    copy = HubCopy(root, "BoKelvin/SLAKE")
    copy.file("test.json", json.dumps(rows, ensure_ascii=False))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in (102, 103):
            archive.writestr(f"{inside}xmlab{number}/source.jpg", picture(number)["bytes"])
    copy.file("imgs.zip", stream.getvalue())
    return copy
