"""Requests in the exact form in which other harnesses write them are answered by `radio-vlm serve`.

The forms are those of VLMEvalKit (`vlmeval/api/lmdeploy.py`, which `run.py --base-url` uses, and `api/gpt.py`) and of
lmms-eval 0.7.3 (`models/chat/openai.py`, `async_openai.py`); eval/plugins/README.md has the commands.
"""

import argparse
import base64
import json
import threading
import urllib.error
import urllib.request

import pytest

from eval.backends.radio import RadioBackend
from tests.helpers.fake_vlm import FakeModel, FakeProcessor
from vlm.cli.serve import add_arguments, open_server

PICTURE = b"\xff\xd8 a picture"
DATA = base64.b64encode(PICTURE).decode()
QUESTION = {"type": "text", "text": "What?"}
SEEN = "".join(map(str, PICTURE))  # what the fake processor makes of bytes


def vlmevalkit(content, **options):
    """`OpenAISDKWrapper.generate_inner` over `LMDeployWrapper.prepare_inputs`, with the defaults of run.py."""
    user = {"role": "user", "content": content}
    return {"model": "export", "messages": [user], "n": 1, "max_tokens": 2**15, "temperature": 0.0, **options}


def image(kind="jpeg", **options):
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{DATA}", **options}}


REQUESTS = {
    "VLMEvalKit --base-url": vlmevalkit([image(), QUESTION]),
    "VLMEvalKit --base-url, two pictures and a system prompt": {
        **vlmevalkit([]),
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [image(), image(), QUESTION]},
        ],
    },
    "VLMEvalKit --base-url, text alone": vlmevalkit([QUESTION]),
    "VLMEvalKit --base-url, a video": vlmevalkit(
        [{"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base64.b64encode(b'clip').decode()}"}}]
        + [QUESTION]
    ),
    "VLMEvalKit --config, GPT4V": vlmevalkit([image(detail="low"), QUESTION], max_tokens=2048, temperature=0),
    "lmms-eval openai": {
        "messages": [{"role": "user", "content": [image("png"), QUESTION]}],
        "model": "export",
        "max_tokens": 32,
        "temperature": 0,
    },
}
SHOWN = {"two": SEEN * 2, "alone": "", "a video": "clip"}


@pytest.fixture(scope="module")
def address():
    """A server over a model that says what it was shown."""
    backend = RadioBackend(FakeModel(lambda picture, text: f" {picture}: {text} "), FakeProcessor())
    options = argparse.ArgumentParser()
    add_arguments(options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eval.backends.open_backend", lambda *_, **__: backend)
        server = open_server(options.parse_args(["--model", "folder", "--name", "export", "--port", "0"]))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def post(address, payload):
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-admin"}
    request = urllib.request.Request(f"{address}/chat/completions", json.dumps(payload).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


@pytest.mark.parametrize("name", REQUESTS)
def test_it_is_answered(address, name):
    answer = post(address, REQUESTS[name])
    seen = next((seen for word, seen in SHOWN.items() if word in name), SEEN)
    words = "Be brief.|What?|" if "system" in name else "What?|"
    limit = REQUESTS[name]["max_tokens"]
    # both harnesses read exactly this, and strip it
    assert answer["choices"][0]["message"]["content"].strip() == f" {seen}: {words} "[:limit].strip()
    assert answer["usage"]["completion_tokens"] == min(limit, len(f" {seen}: {words} "))


def test_paths_of_this_machine_are_not_opened(address):
    """VLMEvalKit's --local-media and lmms-eval's pass_video_url send them; the README says to leave both off."""
    local = {"type": "image_url", "image_url": {"url": "file:///etc/hostname"}}
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(address, vlmevalkit([local, QUESTION]))
    assert (
        refused.value.code == 400
        and "only data URLs are opened" in json.loads(refused.value.read())["error"]["message"]
    )
