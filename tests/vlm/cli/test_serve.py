"""`radio-vlm serve`: the protocol as clients speak it, and the same words as a local evaluation."""

import base64
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from eval.run import main as evaluate
from tests.helpers.data_folders import record, write_image, write_records
from tests.helpers.pdfs import write_pages
from tests.helpers.stage_runs import save_small_vlm
from tests.helpers.video_files import write_video
from vlm.cli import serve_http
from vlm.cli.main import main, parse
from vlm.cli.serve import open_server

FRAMES = {"type": "video_url", "video_url": {"url": "data:video/png;base64,aGVsbG8="}}
SAME = ("id", "output", "new_tokens", "prompt_tokens", "media_tokens", "stopped", "score", "input_hash", "error")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint `model`, and `data`: questions about one picture of any size, about two at once, and about none."""
    root = tmp_path_factory.mktemp("serve")
    save_small_vlm(root / "model", initializer_range=0.3)  # its answers depend on what it is asked
    records = []
    for n in range(9):
        noise = np.random.default_rng(n).integers(0, 255, (40 + 8 * n, 64, 3), dtype=np.uint8)
        (root / "data").mkdir(exist_ok=True)
        Image.fromarray(noise).save(root / f"data/{n}.{'jpg' if n % 2 else 'png'}")
        images = [f"{n}.{'jpg' if n % 2 else 'png'}"] * (n % 3)
        records.append(record(f"s{n}", question="which? " * (1 + n % 4), answer=str(n), images=tuple(images)))
    write_records(root / "data", records)
    return root


@contextmanager
def serving(*words):
    server = open_server(parse(["serve", "--port", "0", "--device", "cpu", *map(str, words)]))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def server(folder):
    with serving("--model", folder / "model") as server:
        yield server


def call(server, method="POST", path="/v1/chat/completions", body=None, raw=None, **headers):
    """(status, headers, bytes)."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    content = raw if raw is not None else None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", "Authorization": "Bearer sk-any"} if content is not None else {}
    connection.request(method, path, content, sent | {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    found = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return found


def chat(server, content="what?", **more):
    """The answer of a good request."""
    messages = [{"role": "user", "content": content}]
    status, _, found = call(server, body={"model": "model", "messages": messages, "max_tokens": 6, **more})
    assert status == 200, found
    return json.loads(found)


def refused(server, **body):
    """(status, message) of a bad one, in OpenAI's form."""
    asked = {"model": "model", "messages": [{"role": "user", "content": "?"}], "max_tokens": 2, **body}
    status, headers, found = call(server, body=asked)
    error = json.loads(found)["error"]
    assert headers["Content-Type"] == "application/json" and set(error) == {"message", "type", "param", "code"}
    return status, error["message"]


def data_url(path, mime="image/png"):
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


def picture(url):
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def test_the_runner_hears_from_the_server_what_it_hears_locally(folder, server, tmp_path):
    """Both run the same questions, the served ones sixteen at a time: every sample is the same."""
    local, served = tmp_path / "local.json", tmp_path / "served.json"
    url = f"http://127.0.0.1:{server.server_port}/v1"
    common = ["--data", str(folder / "data"), "--max-new-tokens", "8", "--no-progress", "--batch-size", "16"]
    assert evaluate(["--model", str(folder / "model"), "--device", "cpu", "--out", str(local), *common]) == 0
    assert evaluate(["--model", f"openai:model@{url}", "--out", str(served), *common]) == 0
    ours, theirs = (json.loads(path.read_text()) for path in (local, served))
    assert [{k: row[k] for k in SAME} for row in ours["samples"]] == [
        {k: row[k] for k in SAME} for row in theirs["samples"]
    ]
    assert ours["tasks"] == theirs["tasks"]
    asked = [row for row in ours["samples"] if row["control"] is None]
    assert len(asked) == 9 and len({row["output"] for row in asked}) > 4, "answers that differ, or nothing is shown"
    about = theirs["provenance"]["model"]
    assert about["fingerprint"] == ours["provenance"]["model"]["fingerprint"]


def test_a_document_is_the_same_pages(folder, server, tmp_path):
    pytest.importorskip("pypdfium2", reason="optional package absent")
    write_pages(tmp_path / "data/d.pdf", 3)
    asked = record("d", answer="1")
    asked["messages"][0]["content"].insert(0, {"type": "document", "document": "d.pdf"})
    write_records(tmp_path / "data", [asked])
    rows = []
    for model in (str(folder / "model"), f"openai:model@http://127.0.0.1:{server.server_port}/v1"):
        out = tmp_path / f"{len(rows)}.json"
        words = ["--model", model, "--data", str(tmp_path / "data"), "--out", str(out), "--max-new-tokens", "6"]
        assert evaluate([*words, "--no-progress"]) == 0
        rows.append({k: json.loads(out.read_text())["samples"][0][k] for k in SAME})
    assert rows[0] == rows[1] and rows[0]["media_tokens"] > 0


@pytest.fixture
def films(tmp_path):
    """Questions about video files, whose items ask for more frames than the processor, for fewer, or for a part."""
    pytest.importorskip("av", reason="optional package absent")
    records = []
    for n, own in enumerate(({}, {"max_frames": 12, "fps": 4.0}, {"max_frames": 3}, {"start": 1.0, "end": 2.5})):
        (tmp_path / "films").mkdir(exist_ok=True)
        write_video(tmp_path / f"films/{n}.mp4", 40 + 7 * n, rate=10, size=(64, 48 + 16 * n), picture=speckled)
        asked = record(f"v{n}", question="which? " * (1 + n), answer=str(n))
        asked["messages"][0]["content"].insert(0, {"type": "video", "video": f"{n}.mp4", **own})
        records.append(asked)
    return write_records(tmp_path / "films", records)


def speckled(number, height=64, width=64):
    return np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)


def both_ways(model, url, data, tmp_path, *words):
    """Results of the same questions, locally and served."""
    found = []
    for name in (str(model), f"openai:{model.name}@{url}"):
        out = tmp_path / f"{len(found)}.json"
        asked = ["--model", name, "--data", str(data), "--out", str(out), "--max-new-tokens", "8", "--no-progress"]
        assert evaluate([*asked, "--device", "cpu", *words]) == 0
        found.append(json.loads(out.read_text()))
    return found


def compared(results):
    return [{key: row[key] for key in ("control", *SAME)} for row in results["samples"]]


@pytest.mark.parametrize("words", [(), ("--max-frames", "5", "--fps", "3")])
def test_videos_and_their_shuffled_frames_are_the_same(folder, server, films, tmp_path, caplog, words):
    """The server samples whole files as the items, the options and its own processor say."""
    url = f"http://127.0.0.1:{server.server_port}/v1"
    ours, theirs = both_ways(folder / "model", url, films, tmp_path, *words)
    assert compared(ours) == compared(theirs) and ours["tasks"] == theirs["tasks"]
    plain, shuffled = ([r for r in theirs["samples"] if r["control"] == c] for c in (None, "frames_shuffled"))
    assert len(plain) == len(shuffled) == 4 and not [row["error"] for row in theirs["samples"] if row["error"]]
    assert len({row["output"] for row in plain}) > 2, "answers that differ, or nothing is shown"
    assert [row["output"] for row in plain] != [row["output"] for row in shuffled]
    assert [row["media_tokens"] for row in plain] == [row["media_tokens"] for row in shuffled]
    assert len({row["media_tokens"] for row in plain}) > 1, "the items' own numbers of frames"
    assert "frames of videos as pictures" not in caplog.text
    about = theirs["provenance"]["model"]["video"]
    assert about["given_as"] == "video" and about["max_frames"] == ours["provenance"]["model"]["video"]["max_frames"]


def test_videos_too_large_to_send_are_frames_of_one_video(folder, server, films, tmp_path, monkeypatch):
    from eval.backends import openai_messages

    monkeypatch.setattr(openai_messages, "MAX_VIDEO_BYTES", 100)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    ours, theirs = both_ways(folder / "model", url, films, tmp_path, "--no-controls")
    assert compared(ours) == compared(theirs) and not [row["error"] for row in theirs["samples"] if row["error"]]


def test_pictures_beyond_the_bounds_of_strangers_are_the_same(folder, server, tmp_path, monkeypatch):
    from eval.backends import openai_messages

    monkeypatch.setattr(openai_messages, "MAX_PIXELS", 500)
    monkeypatch.setattr(openai_messages, "MAX_BYTES", 500)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    ours, theirs = both_ways(folder / "model", url, folder / "data", tmp_path, "--no-controls")
    assert compared(ours) == compared(theirs)


def test_videos_of_a_peer_are_the_same(films, tmp_path):
    from tests.helpers.tiny_peers import tiny_llava

    for part in tiny_llava():
        part.save_pretrained(tmp_path / "llava")
    with serving("--model", tmp_path / "llava") as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        ours, theirs = both_ways(tmp_path / "llava", url, films, tmp_path)
    assert compared(ours) == compared(theirs) and len(ours["samples"]) == 8
    assert not [row["error"] for row in theirs["samples"] if row["error"]]


def test_the_form_of_an_answer(server):
    answer = chat(server, temperature=0, n=1, model="model")
    assert answer["object"] == "chat.completion" and answer["model"] == "model" and answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant" and isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in ("stop", "length") and choice["index"] == 0
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] and usage["prompt_tokens"] > 5


def test_models_and_health(server):
    assert json.loads(call(server, "GET", "/health")[2]) == {"status": "ok"}
    status, _, listed = call(server, "GET", "/v1/models")
    (entry,) = json.loads(listed)["data"]
    assert status == 200 and entry["id"] == "model" and len(entry["fingerprint"]) == 64
    assert entry["owned_by"] == "radio-vlm" and set(entry["video"]) == {"max_frames", "fps"}
    assert json.loads(call(server, "GET", "/v1/models/model")[2]) == entry
    assert call(server, "GET", "/v1/nothing")[0] == 404
    assert call(server, "GET", "/v1/chat/completions")[0] == 405


def events(found):
    lines = [line.removeprefix("data: ") for line in found.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_stream_is_the_answer_in_pieces(server):
    whole = chat(server, "tell", max_tokens=24)
    asked = {"messages": [{"role": "user", "content": "tell"}], "max_tokens": 24, "stream": True}
    _, headers, found = call(server, body=asked | {"stream_options": {"include_usage": True}})
    assert headers["Content-Type"] == "text/event-stream"
    first, *chunks, last, usage = events(found)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"] and len(pieces) > 3
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_stop_strings_never_show_in_a_stream(server):
    text = chat(server, "tell", max_tokens=24)["choices"][0]["message"]["content"]
    stop = next(text[n : n + 2] for n in range(3, len(text) - 1) if text[n : n + 2].strip() == text[n : n + 2])
    cut = chat(server, "tell", max_tokens=24, stop=[stop])["choices"][0]
    assert cut["finish_reason"] == "stop" and cut["message"]["content"] == text.split(stop)[0].strip()
    messages = [{"role": "user", "content": "tell"}]
    _, _, found = call(server, body={"messages": messages, "max_tokens": 24, "stop": stop, "stream": True})
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events(found)]
    assert "".join(pieces) == cut["message"]["content"]


def test_sampling_follows_its_seed(server):
    def text(**more):
        return chat(server, "tell", max_tokens=16, **more)["choices"][0]["message"]["content"]

    greedy = text()
    hot = [text(temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2] and greedy not in hot
    assert text(temperature=1.5, top_p=1e-6, seed=3) == greedy, "a nucleus of one token is the likeliest"
    assert text() == greedy


def test_pictures_frames_and_video_files(folder, server, tmp_path):
    pytest.importorskip("av", reason="optional package absent")
    frames = []
    for n in range(3):
        frames.append(
            base64.b64encode(write_image(tmp_path / f"{n}.jpg", (80 * n, 0, 0), (64, 64)).read_bytes()).decode()
        )
    clip = write_video(tmp_path / "clip.mp4", 8, rate=4)
    video = [{"type": "video_url", "video_url": {"url": data_url(clip, "video/mp4")}}, {"type": "text", "text": "?"}]
    one, two = (
        chat(server, video, media_io_kwargs={"video": {"num_frames": n}})["usage"]["prompt_tokens_details"][
            "media_tokens"
        ]
        for n in (1, 2)
    )
    assert two == 2 * one > 0
    shots = {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + ",".join(frames)}}
    assert chat(server, [shots])["usage"]["prompt_tokens_details"]["media_tokens"] > 0
    for own in ({"max_frames": 1}, {"fps": 0.5}, {"start": 0.5, "end": 1.0}):  # a part's own word is the last
        asked = [{**video[0], **own}, video[1]]
        found = chat(server, asked, media_io_kwargs={"video": {"num_frames": 2, "fps": 2.0}})
        assert found["usage"]["prompt_tokens_details"]["media_tokens"] == one
    timed = chat(server, [{**shots, "timestamps": [0, 0.5, 60.25]}])["usage"]
    assert timed["prompt_tokens"] > chat(server, [shots])["usage"]["prompt_tokens"], "the times are words"
    shown = [picture(data_url(folder / "data/0.png")), {"type": "text", "text": "?"}]
    assert chat(server, shown)["usage"]["prompt_tokens_details"]["media_tokens"] > 0
    assert chat(server, shown)["choices"] == chat(server, shown)["choices"]


@pytest.mark.parametrize(
    "body, status, words",
    [
        ({"messages": []}, 400, "messages must be a list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0]: role must be one of"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "content must be a string or a list"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "the last message must be the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]}]}, 400,
         "parts are text, image_url and video_url, not 'image'"),
        *(
            ({"messages": [{"role": "user", "content": [{**FRAMES, **own}]}]}, 400, words)
            for own, words in (
                ({"fps": "many"}, "messages[0].content[0].fps must be a number"),
                ({"max_frames": 1.5}, "messages[0].content[0].max_frames must be a whole number"),
                ({"timestamps": ["now"]}, "timestamps must be a list of seconds"),
                ({"timestamps": [1.0, 2.0]}, "2 timestamps for 1 frames"),
                ({"start": 1.0}, "start: only for video files"),
            )
        ),
        ({"model": "other"}, 404, "no model 'other' here; there is 'model'"),
        ({"max_tokens": 0}, 400, "max_tokens must be a whole number from 1"),
        ({"max_tokens": 2.5}, 400, "max_tokens must be a whole number"),
        ({"max_completion_tokens": "many"}, 400, "max_completion_tokens must be a whole number"),
        ({"temperature": -1}, 400, "temperature must be a number from 0 to 2"),
        ({"temperature": True}, 400, "temperature must be a number"),
        ({"top_p": 0}, 400, "top_p must be"),
        ({"stop": [""]}, 400, "stop must be"),
        ({"n": 2}, 400, "n must be 1"),
        ({"tools": [{"type": "function"}]}, 400, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format is not supported"),
        ({"stream_options": "x"}, 400, "stream_options must be an object"),
        ({"seed": -1}, 400, "seed must be"),
    ],
)  # fmt: skip
def test_bad_requests(server, body, status, words):
    found, message = refused(server, **body)
    assert found == status and words in message


@pytest.mark.parametrize(
    "url, words",
    [
        ("http://example.org/a.png", "only data URLs are opened"),
        ("file:///etc/passwd", "only data URLs are opened"),
        ("/etc/passwd", "only data URLs are opened"),
        ("data:image/png;base64,@@@", "not base64"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png,abc", "must be data:TYPE;base64,DATA"),
        ("data:image/png;base64,aGVsbG8=", "not an image in a format Pillow knows"),
    ],
)
def test_bad_pictures(server, url, words):
    for part in (picture(url), {"type": "image_url", "image_url": url}):
        status, message = refused(server, messages=[{"role": "user", "content": [part]}])
        assert status == 400 and words in message


def test_bad_bodies(server, monkeypatch):
    assert call(server, raw=b"{not json")[0] == 400
    assert call(server, raw=b"[1]")[0] == 400
    assert call(server, raw=b"[" * 100_000)[0] == 400
    assert call(server, raw=b"{}", Content_Type="text/plain")[0] == 415
    assert call(server, path="/v1/completions", body={})[0] == 404
    assert call(server, raw=iter([b"{}"]), Transfer_Encoding="chunked")[0] == 411
    monkeypatch.setattr(serve_http, "MAX_BODY", 100)
    status, headers, found = call(server, raw=b" " * 101)
    assert status == 413 and headers["Connection"] == "close" and b"101 bytes" in found
    monkeypatch.undo()
    assert chat(server)["choices"], "it goes on"


def test_many_at_once_answer_as_each_alone(server):
    questions = [f"question {'long ' * (n % 3)}{n}" for n in range(10)]
    alone = [chat(server, question)["choices"] for question in questions]
    sizes, generate = [], server.engine.backend.generate

    def counted(batch, *rest, **how):
        sizes.append(len(batch))
        return generate(batch, *rest, **how)

    server.engine.backend.generate = counted
    try:
        with ThreadPoolExecutor(10) as pool:
            together = list(pool.map(lambda question: chat(server, question)["choices"], questions))
    finally:
        server.engine.backend.generate = generate
    assert together == alone and max(sizes) > 1 and sum(sizes) == 10


def test_one_that_fails_costs_the_others_nothing(server):
    generate = server.engine.backend.generate

    def poisoned(batch, *rest, **how):
        if any(encoded.length > 60 for encoded in batch):
            raise RuntimeError("poisoned")
        return generate(batch, *rest, **how)

    server.engine.backend.generate = poisoned
    try:
        with ThreadPoolExecutor(4) as pool:
            bad = pool.submit(refused, server, messages=[{"role": "user", "content": "long " * 30}])
            good = [pool.submit(chat, server, f"q{n}", max_tokens=2) for n in range(3)]
            assert all(one.result()["choices"] for one in good)
            assert bad.result() == (500, "the model failed: RuntimeError: poisoned")
    finally:
        server.engine.backend.generate = generate


def test_a_client_that_leaves_ends_its_answer(server):
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    asked = {"messages": [{"role": "user", "content": "tell"}], "max_tokens": 4000, "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.readline()
    response.close()
    connection.close()
    assert chat(server, max_tokens=2)["choices"], "the next one need not wait for 4000 tokens"


def test_a_peer_is_served_too(tmp_path):
    from tests.helpers.tiny_peers import tiny_llava

    for part in tiny_llava():
        part.save_pretrained(tmp_path / "llava")
    write_image(tmp_path / "a.png")
    with serving("--model", tmp_path / "llava", "--name", "peer") as server:
        shown = [picture(data_url(tmp_path / "a.png")), {"type": "text", "text": "?"}]
        answer = chat(server, shown, model="peer")
        assert answer["usage"]["prompt_tokens_details"]["media_tokens"] == 16
        asked = {"messages": [{"role": "user", "content": shown}], "max_tokens": 6, "stream": True}
        pieces = [e["choices"][0]["delta"].get("content", "") for e in events(call(server, body=asked)[2])]
        assert "".join(pieces) == answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--model", "nowhere/at/all", "--port", "0"], "no folder nowhere/at/all"),
        (["--model", "openai:m@http://h/v1"], "is served already"),
        (["--model", "x", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_bad_words_are_one_line(words, message, capsys):
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(folder, server, capsys):
    words = ["serve", "--model", str(folder / "model"), "--device", "cpu", "--port", str(server.server_port)]
    assert main(words) == 2
    assert f"cannot listen on 127.0.0.1:{server.server_port}" in capsys.readouterr().err


def test_the_command_serves_until_it_is_interrupted(folder, monkeypatch, capsys):
    serve_forever, asked = serve_http.ModelServer.serve_forever, []

    def until_asked(self):
        thread = threading.Thread(target=serve_forever, args=(self, 0.05), daemon=True)
        thread.start()
        asked.extend([self, call(self, "GET", "/health")[0]])
        self.shutdown()
        raise KeyboardInterrupt

    monkeypatch.setattr(serve_http.ModelServer, "serve_forever", until_asked)
    assert main(["serve", "--model", str(folder / "model"), "--port", "0", "--device", "cpu"]) == 0
    server, status = asked
    assert status == 200
    assert f"serving model at http://127.0.0.1:{server.server_port}/v1" in capsys.readouterr().out
    assert not server.engine._thread.is_alive() and server.socket.fileno() == -1
