"""The log of calls, and that nothing of a patient or of this machine gets into it, a prompt or an error."""

import json
import logging

import pytest

from tests.helpers.odd_experts import PATIENT, Odd, ask, asked, write_image
from vlm.experts import ExpertSession
from vlm.experts.image_facts import file_digest

PLANTED = ["zebrowski", "annabel", "quackenbush", "nowhere hospital", "4711", "19530617", "acc90210", "jane", "scans"]


@pytest.fixture
def image(tmp_path):
    (tmp_path / "scans").mkdir()
    return write_image(tmp_path / "scans" / "jane_doe.dcm")


def test_planted_identifiers_reach_neither_prompt_nor_log(image, tmp_path, caplog):
    assert any(word in str(PATIENT).lower() for word in PLANTED)
    caplog.set_level(logging.DEBUG)
    name = f"<ODD(raise {PATIENT['PatientID']})>"
    replies = ("<ODD(leak)>", "<ODD(raise)>", "<ODD(refuse)>", name, "<ODD( Zebrowski (x))>")
    with ExpertSession(["ODD"], instances={"ODD": Odd()}, max_calls=9, log=tmp_path / "log.jsonl") as session:
        transcript = ask(session, asked(image), *replies)
    texts = [call.text for call in transcript.calls]
    assert texts[0] == "the liver of [removed] ([removed]) in [removed] is fine; lesion is 14 mm"
    assert texts[1] == "error: ODD failed: RuntimeError"
    assert len(texts) == 5 and not any(call.ok for call in transcript.calls[1:])
    told = [item["text"] for m in transcript.messages if m["role"] == "user" for item in m["content"] if "text" in item]
    for text in (*told, (tmp_path / "log.jsonl").read_text(), caplog.text):
        assert not [word for word in PLANTED if word in text.lower()], text


def test_the_log_has_a_line_for_each_thing_that_happened(image, tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    for _ in range(2):  # a second session appends
        with ExpertSession(["ODD"], instances={"ODD": Odd()}, log=path, feedback="both") as session:
            ask(session, asked(image), "x" * 10_000 + "<ODD(mask)>", "<ODD(spleen, fine)>")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["event"] for row in rows] == ["offer", "call", "call"] * 2
    digest = file_digest(image)
    assert rows[0]["files"] == {"1": digest} and rows[0]["experts"] == ["ODD"] and len(digest) == 16
    first = {key: value for key, value in rows[1].items() if key not in ("time", "seconds", "expert_seconds")}
    assert first == {
        "event": "call", "trigger": "<ODD(mask)>", "expert": "ODD", "arguments": ["mask"], "file": digest, "ok": True,
        "text": "two regions\noverlay: red: liver, lime: hepatic tumor", "marked": True, "overlay": True,
    }  # fmt: skip
    assert rows[1]["time"].endswith("+00:00") and 0 <= rows[1]["expert_seconds"] <= rows[1]["seconds"]
    assert rows[2]["arguments"] == ["spleen", "fine"] and not rows[2]["ok"]


def test_a_log_that_cannot_be_written_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError):
        ExpertSession(log=tmp_path)


def test_the_digest_is_the_content_not_the_name(tmp_path, image):
    (tmp_path / "other.dcm").write_bytes(image.read_bytes())
    assert file_digest(tmp_path / "other.dcm") == file_digest(image)
    assert file_digest(tmp_path / "absent") is None and file_digest(None) is None
    assert file_digest(tmp_path / "scans") == file_digest(image), "a folder: the contents of its files"
