"""The expert and the session that vlm/experts/README.md shows."""

import re
from pathlib import Path

import numpy as np

from tests.helpers.odd_experts import SIZE, ask, asked, write_image
from vlm.experts import ExpertSession, protocol

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(protocol.__file__).parent / "README.md").read_text(), re.S)


def test_the_expert_of_the_page_works(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "_EXPERTS", dict(protocol._EXPERTS))
    shown = {"load": lambda: lambda path, fast: (np.ones((SIZE, SIZE), int), 1500 if fast else 1400)}
    exec(BLOCKS[1], shown)
    image = write_image(tmp_path / "a.dcm")
    with ExpertSession(["LIVER"], feedback="both") as session:
        call = ask(session, asked(image), "<LIVER(fast)>").calls[0]
    assert call.text == "liver 1500 ml\noverlay: red: liver"


def test_the_session_of_the_page_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = write_image(tmp_path / "a.dcm")
    shown = {
        "pipe": lambda messages: "left",
        "messages": asked(image),
        "generate": lambda batch: ["left"] * len(batch),
        "conversations": [asked(image)] * 2,
        "generate_pieces": lambda messages: ["le", "ft"],
    }
    exec(BLOCKS[0], shown)
    assert shown["transcript"].answer == "left" and len(shown["transcripts"]) == 2
    assert shown["event"].text == "left" and (tmp_path / "calls.jsonl").exists()
