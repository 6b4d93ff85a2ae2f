"""`radio-vlm chat --document`: pages of a file in one question and in a conversation, and every way to get it wrong."""

import sys

import pytest

from tests.helpers.pdfs import encrypted_pdf, write_pages
from tests.helpers.scripted_chat import Scripted, type_in
from vlm.cli.chat import Chat, converse, document_item
from vlm.cli.main import main
from vlm.cli.media_items import media_item
from vlm.errors import RadioVLMError

pytest.importorskip("pypdfium2", reason="optional package absent")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny checkpoint, a document of three pages, a locked one."""
    from tests.helpers.tiny_vlm import build_tiny

    folder = tmp_path_factory.mktemp("chat")
    for part in build_tiny():
        part.save_pretrained(folder / "model")
    write_pages(folder / "report.pdf")
    write_pages(folder / "my report.pdf", 2)
    (folder / "locked.pdf").write_bytes(encrypted_pdf("secret"))
    return folder


def test_items_of_files(folder):
    path = folder / "report.pdf"
    assert media_item(path, "document") == {"type": "document", "document": str(path)}
    chosen = media_item(path, "document", pages="1-2", dpi=None)
    assert chosen == {"type": "document", "document": str(path), "pages": "1-2"}
    assert media_item(path, "document", pages=None, dpi=72.0)["dpi"] == 72.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("report.pdf", {"document": "report.pdf"}),
        ("report.pdf 2-", {"document": "report.pdf", "pages": "2-"}),
        ("my report.pdf", {"document": "my report.pdf"}),
        ("my report.pdf 1", {"document": "my report.pdf", "pages": "1"}),
    ],
)
def test_words_behind_the_command(folder, monkeypatch, words, expected):
    monkeypatch.chdir(folder)
    assert document_item(words, None) == {"type": "document", **expected}
    assert document_item(words, 72)["dpi"] == 72


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--document", "nowhere.pdf"], "no document file nowhere.pdf"),
        (["--document", "locked.pdf"], "needs a password"),
        (["--document", "report.pdf", "--pages", "2-7"], "page 7 is not in a document of 3 pages"),
        (["--document", "report.pdf", "--pages", "two"], "not of the form 1-3,5"),
        (["--document", "report.pdf", "--dpi", "0"], "dpi must be a positive number"),
        (["--pages", "1"], "--document FILE"),
    ],
)
def test_named_before_the_weights_are_loaded(folder, monkeypatch, capsys, words, message):
    from vlm.cli import loading

    monkeypatch.chdir(folder)
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("the weights were loaded"))
    assert main(["chat", "--model", str(folder / "model"), *words, "--question", "?"]) == 2
    assert message in capsys.readouterr().err


def test_without_pypdfium2_it_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(RadioVLMError, match="radio-vlm\\[documents\\]"):
        media_item(folder / "report.pdf", "document")


def test_one_question_shows_the_chosen_pages(folder, monkeypatch):
    """What the processor is given for two pages: labels and pictures before the question."""
    asked = []
    generate = Chat.generate

    def listen(self, conversations):
        asked.append(self.processor.encode(conversations[0], add_generation_prompt=True))
        return generate(self, conversations)

    monkeypatch.setattr(Chat, "generate", listen)
    words = ["chat", "--model", folder / "model", "--document", folder / "report.pdf", "--pages", "1,3", "--dpi", "72"]
    assert main([*map(str, words), "--question", "TOTAL?", "--max-new-tokens", "2"]) == 0
    assert len(asked[0]["image_grid_hw"]) == 2
    words += ["--question", "TOTAL?", "--max-new-tokens", "2"]
    assert main([str(word) for word in words if word not in ("--pages", "1,3")]) == 0
    assert len(asked[1]["image_grid_hw"]) == 3


def test_in_a_conversation(folder, monkeypatch, capsys):
    chat = Scripted(["one"])
    lines = ("/document nowhere.pdf", f"/document {folder / 'locked.pdf'}", f"/document {folder / 'report.pdf'} 1-2")
    type_in(monkeypatch, *lines, "what?")
    assert converse(chat, [], {}) == 0
    item = {"type": "document", "document": str(folder / "report.pdf"), "pages": "1-2"}
    assert chat.asked[0][-1]["content"][0] == item and len(chat.asked[0][-1]["content"]) == 2
    shown = capsys.readouterr().out
    assert "error: no document file nowhere.pdf" in shown and "password" in shown
