"""`radio-vlm chat`: one question, a conversation, files of every kind, experts."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.scripted_chat import Scripted, arguments, type_in
from vlm.cli import chat as chat_module
from vlm.cli.chat import Chat, converse
from vlm.cli.main import main
from vlm.experts import Expert, ExpertCard, ExpertResult, ExpertSession
from vlm.notice import NOTICE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny checkpoint and an image beside it."""
    from tests.helpers.tiny_vlm import build_tiny

    folder = tmp_path_factory.mktemp("chat")
    for part in build_tiny():
        part.save_pretrained(folder / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)).save(folder / "page.png")
    return folder


def test_one_question_streams_what_generate_says(folder, capsys):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    words = ["chat", "--model", folder / "model", "--image", folder / "page.png", "--question", "TOTAL?"]
    assert main([*map(str, words), "--max-new-tokens", "6"]) == 0
    shown = capsys.readouterr().out
    processor = AutoProcessor.from_pretrained(folder / "model")
    model = AutoModelForImageTextToText.from_pretrained(folder / "model").eval()
    content = [{"type": "image", "image": str(folder / "page.png")}, {"type": "text", "text": "TOTAL?"}]
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert shown.strip() == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_video_file(folder, capsys):
    av = pytest.importorskip("av", reason="optional package absent")
    with av.open(str(folder / "clip.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for value in (0, 80, 160, 240):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), value, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    words = ["chat", "--model", folder / "model", "--video", folder / "clip.mp4", "--question", "Direction?"]
    for options in ([], ["--max-frames", "2"], ["--start", "0.3", "--end", "0.8"]):
        assert main([*map(str, words), "--max-new-tokens", "2", *options]) == 0


def test_a_dicom_file(folder):
    pytest.importorskip("pydicom", reason="optional package absent")
    from pydicom.data import get_testdata_file

    words = [
        "--image",
        get_testdata_file("CT_small.dcm"),
        "--question",
        "Lesions?",
        "--max-new-tokens",
        "2",
        "--experts",
    ]
    assert main(["chat", "--model", str(folder / "model"), *words]) == 0


@pytest.mark.parametrize(
    "words, message",
    [
        (["--image", "nowhere.png"], "no image file nowhere.png"),
        (["--video", "nowhere.mp4"], "no video file nowhere.mp4"),
        (["--expert", "NOBODY"], "unknown expert NOBODY; known: "),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(folder, capsys, words, message):
    assert main(["chat", "--model", str(folder / "model"), *words, "--question", "?"]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_none(tmp_path, capsys):
    assert main(["chat", "--model", str(tmp_path / "nowhere"), "--question", "?"]) == 2
    assert "no folder" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert main(["chat", "--model", str(tmp_path), "--question", "?"]) == 2
    assert "not a RADIO-VLM checkpoint" in capsys.readouterr().err


def test_a_conversation_keeps_its_turns_and_its_files(folder, monkeypatch, capsys):
    chat = Scripted(["one", "two", "three"], "--system", "Be brief.")
    type_in(
        monkeypatch,
        "first?",
        f"/image {folder / 'page.png'}",
        "second?",
        "/image nowhere.png",
        "/what",
        "/reset",
        "third?",
    )
    assert converse(chat, [], {}) == 0
    roles = [message["role"] for message in chat.asked[1]]
    assert roles == ["system", "user", "assistant", "user"]
    assert [item["type"] for item in chat.asked[1][-1]["content"]] == ["image", "text"]
    assert [message["role"] for message in chat.asked[2]] == ["system", "user"], "/reset forgets"
    shown = capsys.readouterr().out
    assert "error: no image file nowhere.png" in shown and "unknown command /what" in shown


def test_quit_and_help(monkeypatch, capsys):
    type_in(monkeypatch, "/help", "/quit", "never asked")
    chat = Scripted([])
    assert converse(chat, [], {}) == 0
    assert "/image FILE" in capsys.readouterr().out and chat.asked == []


class Counter(Expert):
    card = ExpertCard(name="COUNTER", modality="CT", body_part="any", returns="a number")

    def run(self, path, arguments):
        return ExpertResult("there are 3")


def test_an_expert_is_offered_called_and_its_answer_kept(folder, caplog):
    session = ExpertSession(["COUNTER"], instances={"COUNTER": Counter()})
    caplog.set_level("INFO")
    chat = Scripted(["<COUNTER()>", "3", "yes"], session=session)
    item = {"type": "image", "image": str(folder / "page.png"), "modality": "CT"}  # a PNG says nothing itself
    assert chat.ask([item], "How many?") == "3"
    assert "<COUNTER()>" in chat.asked[0][0]["content"][0]["text"], "the card stands in the first turn"
    assert "there are 3" in caplog.text, "the person sees what the expert said"
    chat.ask([], "Sure?")
    cards = [
        i
        for m in chat.asked[-1]
        if not isinstance(m["content"], str)
        for i in m["content"]
        if "Experts:" in i.get("text", "")
    ]
    assert len(cards) == 1, "the card is offered once, however many turns follow"
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 3


def test_sampling_follows_the_temperature(folder):
    from tests.helpers.tiny_vlm import build_tiny

    model, processor = build_tiny()
    asked = {}
    model.generate = lambda **kwargs: asked.update(kwargs) or torch.cat([kwargs["input_ids"], torch.tensor([[100]])], 1)
    for temperature, sampled in ((0.0, False), (0.7, True)):
        chat = Chat(model, processor, arguments("--temperature", str(temperature)))
        assert chat.ask([], "Hi") == processor.tokenizer.decode([100])
        assert asked["do_sample"] is sampled and asked.get("temperature", 0.0) == temperature
    assert chat_module.HELP


class Marker(Expert):
    card = ExpertCard(name="MARKER", modality="CT", body_part="any", returns="a region")

    def run(self, path, arguments):
        return ExpertResult("one region", np.ones((48, 80), int), {"labels": {1: "liver"}})


def test_calls_are_shown_as_they_happen_logged_and_drawn(folder, capsys, tmp_path):
    words = ["--experts", "--expert-feedback", "both", "--expert-log", str(tmp_path / "calls.jsonl")]
    args = arguments(*words)
    session = chat_module.expert_session(args)
    session.cards = {"MARKER": Marker.card}
    session.instances["MARKER"] = Marker()
    chat = Scripted(["<MARKER()>", "<MARKER(>", "red"], session=session)
    item = {"type": "image", "image": str(folder / "page.png"), "modality": "CT"}
    assert chat.ask([item], "Colour?") == "red"
    shown = capsys.readouterr().out
    assert shown.index("[asking <MARKER()>]") < shown.index("[MARKER answered after ")
    turns = [message["content"] for message in chat.asked[-1] if message["role"] == "user"]
    overlay, words = turns[1]
    assert overlay["image"].size == (80, 48) and words["text"] == "one region\noverlay: red: liver\nColour?"
    assert "not a valid trigger" in turns[2][0]["text"]
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 3  # what was offered, and two calls
    session.close()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--expert-log", "calls.jsonl"], "need --experts"),
        (["--expert-feedback", "overlay"], "need --experts"),
        (["--experts", "--expert-log", "."], "--expert-log: cannot write ."),
        (["--expert-weights", "."], "need --experts"),
        (["--experts", "--expert-weights", "nowhere"], "--expert-weights: no folder nowhere"),
        (["--expert", "FINDINGS", "--expert-weights", "."], "--expert FINDINGS cannot be used here: no weights"),
        (["--experts", "LESIONS", "NOPE"], "unknown expert NOPE; known: "),
    ],
)
def test_expert_options_that_cannot_work(folder, capsys, words, message):
    assert main(["chat", "--model", str(folder / "model"), *words, "--question", "?"]) == 2
    assert message in capsys.readouterr().err


def test_with_experts_it_says_that_it_is_research_software(folder, capsys, monkeypatch):
    words = ["chat", "--model", str(folder / "model"), "--image", str(folder / "page.png"), "--question", "?"]
    words += ["--max-new-tokens", "2"]
    assert main([*words, "--experts"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count(f"{NOTICE}\n") == 1 and NOTICE not in shown.out, "an answer may be piped on"
    assert main(words) == 0
    assert NOTICE not in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    chat_module._say_notice()
    assert capsys.readouterr().err == f"\x1b[2m{NOTICE}\x1b[0m\n", "dim"
