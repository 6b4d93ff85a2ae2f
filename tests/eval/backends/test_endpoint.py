"""The client of OpenAI-compatible servers, against a scripted one: what is sent, what is tried again, what is told."""

import base64
import io
import json
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from PIL import Image

from eval.backends import open_backend
from eval.backends.base import Decoding
from eval.backends.endpoint import EndpointBackend
from eval.backends.openai_client import ATTEMPTS, LONGEST_WAIT, retry_after
from eval.backends.openai_messages import MAX_PIXELS
from eval.generation import Generator, Request
from eval.run import main
from tests.helpers.data_folders import record, write_image, write_records
from tests.helpers.pdfs import write_pages
from tests.helpers.scripted_server import Script, completion, served
from tests.helpers.stage_runs import free_port
from tests.helpers.video_files import write_video

KEY = "sk-planted-0123456789abcdef"
TEN = Decoding(10)


def question(text, *items):
    return [{"role": "user", "content": [*items, {"type": "text", "text": text}]}]


def image(path):
    return {"type": "image", "image": str(path)}


def pixels(url):
    head, _, data = url.partition(",")
    return head, base64.b64decode(data), Image.open(io.BytesIO(base64.b64decode(data)))


def words_of(body):
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def ask(script, conversations, decoding=TEN, **patience):
    """(replies, seconds waited, backend) of a backend that does not really sleep."""
    waits = []
    with served(script) as url:
        backend = EndpointBackend(url, "m", KEY, **({"sleep": waits.append} | patience))
        requests = [Request(str(n), messages) for n, messages in enumerate(conversations)]
        replies = Generator(backend, 16, progress=False).answer(requests, decoding)
    return replies, waits, backend


def test_what_is_sent_and_what_comes_back():
    script = Script(lambda body: completion("  Paris. More", prompt_tokens=11, tokens=4))
    turns = [{"role": "system", "content": "Be short."}, *question("Where?")]
    (reply,), waits, _ = ask(script, [turns], Decoding(10, (".", "\n")))
    assert (reply.text, reply.stopped, reply.prompt_tokens, reply.tokens) == ("Paris", True, 11, 4)
    ((path, headers, body),) = script.seen
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "m", "temperature": 0, "max_tokens": 10, "stop": [".", "\n"],
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Where?"}],
    }  # fmt: skip
    assert reply.prompt == "system: Be short.\nuser: Where?" and not waits


def test_an_answer_cut_by_the_limit_is_not_stopped():
    (reply,), _, _ = ask(Script(lambda body: completion("a b c", finish="length")), [question("?")])
    assert not reply.stopped and reply.text == "a b c"


def test_jpeg_and_png_files_go_as_they_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=60)
    Image.fromarray(noise).save(tmp_path / "b.png")
    script = Script(lambda body: completion("x"))
    (reply,), _, _ = ask(script, [question("two", image(tmp_path / "a.jpg"), image(tmp_path / "b.png"))])
    parts = script.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    for part, name, mime in zip(parts, ("a.jpg", "b.png"), ("image/jpeg", "image/png")):
        head, content, _ = pixels(part["image_url"]["url"])
        assert head == f"data:{mime};base64" and content == (tmp_path / name).read_bytes()
    assert reply.prompt == "user: <image><image>two"


def test_other_pictures_are_written_again_upright_and_bounded(tmp_path, caplog):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.bmp")
    exif = noise.getexif()
    exif[0x0112] = 6  # a quarter turn
    noise.save(tmp_path / "turned.png", exif=exif)
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (8000, 4000)).save(tmp_path / "huge.png")
    names = ("a.bmp", "turned.png", "clear.png", "huge.png")
    script = Script(lambda body: completion("x"))
    ask(script, [question("?", *(image(tmp_path / name) for name in names))])
    shown = [pixels(part["image_url"]["url"])[2] for part in script.bodies[0]["messages"][0]["content"][:-1]]
    assert np.array_equal(np.asarray(shown[0]), np.asarray(noise))
    assert shown[1].size == (30, 40), "upright"
    assert shown[2].convert("RGB").getpixel((0, 0)) == (255, 255, 255), "on white"
    assert MAX_PIXELS * 0.99 < shown[3].width * shown[3].height <= MAX_PIXELS
    assert "8000 x 4000 pixels is sent as" in caplog.text


def test_documents_are_pages_and_videos_frames_with_times(tmp_path):
    pytest.importorskip("av", reason="optional package absent")
    pytest.importorskip("pypdfium2", reason="optional package absent")
    document = {"type": "document", "document": str(write_pages(tmp_path / "d.pdf", 2)), "pages": "2"}
    video = {"type": "video", "video": str(write_video(tmp_path / "v.mp4", 8, rate=4)), "max_frames": 2, "fps": 1.0}
    script = Script(lambda body: completion("x"))
    replies, _, backend = ask(script, [question("?", document), question("?", video)])
    assert not [reply.error for reply in replies if reply.error]
    by_kind = {"Page" in words_of(body): body["messages"][0]["content"] for body in script.bodies}
    pages, frames = by_kind[True], by_kind[False]
    assert [part["type"] for part in pages] == ["text", "image_url", "text"] and pages[0]["text"] == "Page 2:\n"
    assert pages[-1]["text"] == "\n?"
    assert [part.get("text") for part in frames[::2]] == [
        "Frame 1 sampled at 0.00 seconds: ", "\nFrame 2 sampled at 1.00 seconds: ", "\n?",
    ]  # fmt: skip
    assert pixels(frames[1]["image_url"]["url"])[0] == "data:image/jpeg;base64"
    assert backend.processor.video == {"max_frames": 8, "fps": 2.0}


OURS = {"id": "m", "owned_by": "radio-vlm", "video": {"max_frames": 5, "fps": 1.0}}


@pytest.mark.parametrize("entry, whole", [(OURS, True), ({**OURS, "owned_by": "x"}, False), ({"id": "m"}, False)])
def test_only_our_own_server_gets_whole_videos_and_others_are_warned_of_once(tmp_path, caplog, entry, whole):
    pytest.importorskip("av", reason="optional package absent")
    path = write_video(tmp_path / "v.mp4", 8, rate=4)
    item = {"type": "video", "video": str(path), "max_frames": 2, "start": 0.5}
    script = Script(lambda body: completion("x"), [entry])
    replies, _, backend = ask(script, [question("?", item), question("also?", item)])
    assert not [reply.error for reply in replies if reply.error]
    warned = [r for r in caplog.records if "is given the frames of videos as pictures" in r.getMessage()]
    assert len(warned) == (0 if whole else 1)
    first, *_ = script.bodies[0]["messages"][0]["content"]
    if not whole:
        assert first == {"type": "text", "text": "Frame 1 sampled at 0.75 seconds: "}
        assert backend.processor.video == {"max_frames": 8, "fps": 2.0}
        return
    head, content = first["video_url"]["url"].split(",")
    assert head == "data:video/mp4;base64" and base64.b64decode(content) == path.read_bytes()
    assert {k: v for k, v in first.items() if k != "video_url"} == {"type": "video_url", "max_frames": 2, "start": 0.5}
    assert backend.processor.video == OURS["video"] and "<video>" in replies[0].prompt


def test_a_question_in_words_needs_no_word_from_the_server():
    backend = EndpointBackend(f"http://127.0.0.1:{free_port()}/v1", "m", sleep=lambda seconds: pytest.fail("waits"))
    assert backend.encode(question("?"), "x").prompt == "user: ?"


def test_a_busy_server_is_asked_again_and_its_wish_respected():
    answers = iter([(429, {"Retry-After": "7"}, {"error": {"message": "slow"}}), (503, {}, b"<html>"), (200, {}, None)])
    script = Script(lambda body: next(answers, completion("late")))
    (reply,), waits, _ = ask(script, [question("?")], first_wait=0.1)
    assert reply.text == "late" and len(script.seen) == 4
    assert waits[0] == 7.0
    assert 0.2 <= waits[1] <= 0.25 and 0.4 <= waits[2] <= 0.5, "doubled each time"


def test_patience_ends_and_the_last_words_are_told():
    script = Script(lambda body: (500, {"Retry-After": "9999"}, {"error": {"message": "boom"}}))
    (reply,), waits, _ = ask(script, [question("?")])
    assert len(script.seen) == ATTEMPTS and waits == [LONGEST_WAIT] * (ATTEMPTS - 1)
    assert reply.error == "ServerError: the server answered 500: boom"


def test_a_server_too_slow_is_asked_again():
    first = threading.Event()

    def answer(body):
        if not first.is_set():
            first.set()
            time.sleep(0.6)
        return completion("second")

    (reply,), waits, _ = ask(Script(answer), [question("?")], timeout=0.2)
    assert reply.text == "second" and len(waits) == 1


@pytest.mark.parametrize(
    "content, words",
    [
        ({"error": {"message": "image too large", "type": "invalid_request_error"}}, "400: image too large"),
        ({"detail": "no such model"}, "400: no such model"),
        (b"plain words\n", "400: plain words"),
        (b"", "400: Bad Request"),
    ],
)
def test_a_refusal_is_the_samples_own_and_is_not_repeated(content, words):
    """Its neighbour in the same batch is answered."""
    script = Script(lambda body: (400, {}, content) if words_of(body) == "bad" else completion("good"))
    (bad, good), waits, _ = ask(script, [question("bad"), question("good")])
    assert bad.error == f"ServerError: the server answered {words}" and bad.prompt == "user: bad"
    assert good.text == "good" and not good.error and not waits


@pytest.mark.parametrize(
    "answer, words",
    [
        ((200, {}, {"choices": []}), "has no choices"),
        ((200, {}, {"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "content_filter"}]}),
         "gave no text (finish_reason content_filter): no"),
        ((200, {}, b"<html>hello"), "answered no JSON"),
        ((302, {"Location": "http://example.org/"}, b""), "the server answered 302"),
    ],
)  # fmt: skip
def test_answers_that_are_none(answer, words):
    (reply,), _, _ = ask(Script(lambda body: answer), [question("?")])
    assert words in reply.error


def test_requests_of_a_batch_run_side_by_side():
    everybody = threading.Barrier(4, timeout=10)

    def answer(body):
        everybody.wait()  # breaks unless four are here at once
        return completion(words_of(body))

    replies, _, _ = ask(Script(answer), [question(f"q{n}") for n in range(4)])
    assert [reply.text for reply in replies] == ["q0", "q1", "q2", "q3"], "in order"


def test_retry_after_as_number_date_and_nonsense():
    assert retry_after("12") == 12.0 and retry_after("soon") is None and retry_after(None) is None
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after(date) <= 30
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_nobody_there():
    url = f"http://127.0.0.1:{free_port()}/v1"
    waits = []
    backend = EndpointBackend(url, "m", sleep=waits.append)
    with pytest.raises(OSError, match="gave no answer"):
        backend.describe()
    assert len(waits) == ATTEMPTS - 1
    batch = [backend.encode(question("?"), "x")]
    assert "UnreachableError" in backend.generate(batch, TEN).replies[0].error
    assert len(waits) == ATTEMPTS - 1, "known to be away: one try a sample is enough"


@pytest.mark.parametrize("address", ["http://user:hunter2@h/v1", "http://h/v1?key=hunter2", "http:///v1"])
def test_addresses_with_secrets_are_refused_without_repeating_them(address):
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as error:
        open_backend(f"openai:m@{address}", api_key=None)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", ["openai:@http://h/v1", "openai:m", "openai:m@ftp://h"])
def test_how_an_endpoint_is_written(name):
    with pytest.raises(ValueError, match="openai:MODEL@http://HOST:PORT/v1"):
        open_backend(name)


@pytest.fixture
def dataset(tmp_path):
    for n in range(3):
        write_image(tmp_path / f"data/{n}.png", color=(80 * n, 9, 200))
    return write_records(tmp_path / "data", [record(f"s{n}", answer=f"a{n}", images=(f"{n}.png",)) for n in range(3)])


def test_the_runner_over_an_endpoint_and_the_key_nowhere(dataset, tmp_path, monkeypatch, capsys, caplog):
    """A server that repeats the key wherever it can: in refusals and in what it says of its models."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    out = tmp_path / "r.json"
    models = [{"id": "m", "owned_by": f"holder of {KEY}", "fingerprint": "f00"}]

    def answer(body):
        _, _, shown = pixels(body["messages"][0]["content"][0]["image_url"]["url"])
        n = shown.getpixel((0, 0))[0] // 80
        return (
            (401, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}}) if n == 2 else completion(f"a{n}")
        )

    script = Script(answer, models)
    with served(script) as url:
        code = main(["--model", f"openai:m@{url}", "--data", str(dataset), "--out", str(out), "--no-controls"])
    results = json.loads(out.read_text())
    assert code == 0 and [row["output"] for row in results["samples"]] == ["a0", "a1", ""]
    assert "Incorrect API key provided: [key]" in results["samples"][2]["error"]
    about = results["provenance"]["model"]
    assert about["server"] == url and about["fingerprint"] == "f00"
    assert about["says_of_itself"]["owned_by"] == "holder of [key]"
    assert all(headers["Authorization"] == f"Bearer {KEY}" for _, headers, _ in script.seen)
    printed = capsys.readouterr()
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl")]
    for text in (printed.out, printed.err, caplog.text, *written):
        assert KEY not in text
    assert any("[key]" in text for text in written), "the server did repeat it"


def test_a_key_that_is_refused_stops_before_the_questions(dataset, tmp_path, capsys):
    script = Script(lambda body: completion("x"), (401, {}, {"error": {"message": "who are you"}}))
    with served(script) as url:
        code = main(["--model", f"openai:m@{url}", "--data", str(dataset), "--out", str(tmp_path / "r.json")])
    assert code == 2 and not script.seen
    assert "the server answered 401: who are you (the key is read from OPENAI_API_KEY)" in capsys.readouterr().err


def test_a_model_that_the_server_does_not_list_stops_before_the_questions(dataset, tmp_path, capsys):
    script = Script(lambda body: completion("x"), [{"id": "other"}])
    with served(script) as url:
        code = main(["--model", f"openai:m@{url}", "--data", str(dataset), "--out", str(tmp_path / "r.json")])
    assert code == 2 and not script.seen and not (tmp_path / "r.json").exists()
    assert f"--model: {url} lists no model m; it lists: other\n" in capsys.readouterr().err


@pytest.mark.parametrize("models", [[], (404, {}, {"error": {"message": "no such page"}})])
def test_a_server_that_lists_nothing_is_asked_all_the_same(models):
    with served(Script(lambda body: completion("x"), models)) as url:
        assert EndpointBackend(url, "m").describe()["says_of_itself"] == {}


def test_answers_cannot_be_weighed():
    with pytest.raises(ValueError, match="cannot be weighed through endpoint"):
        EndpointBackend("http://127.0.0.1:9/v1", "m").answer_probability(question("?"))
