"""OpenAI's chat protocol as `radio-vlm serve` speaks it: requests read strictly, answers written. Not a command itself.

What would silently be ignored and changes an answer (tools, penalties, several choices) is refused. Media are data URLs
only: a server that opened addresses or files would read for a stranger what the stranger cannot.
"""

import base64
import binascii
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
REFUSED = ("tools", "functions", "logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "audio",
           "chat_template_kwargs")  # fmt: skip
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_NEW_TOKENS = 32768
MAX_SECONDS = 1e9
VIDEO_NUMBERS = {"max_frames": (1, 4096), "fps": (1e-3, 1000), "start": (-MAX_SECONDS, MAX_SECONDS),
                 "end": (-MAX_SECONDS, MAX_SECONDS)}  # fmt: skip


class RequestError(Exception):
    """A request that cannot be met, with its HTTP status and the field at fault."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code

    def body(self) -> dict:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class ChatRequest:
    """What is asked, in this package's own form of messages."""

    messages: list[dict]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    stream_usage: bool = False


def read_request(body: bytes, model: str, default_max_new_tokens: int, folder: Path) -> ChatRequest:
    """The request in `body`. Video files are put into `folder`, which must outlive the request.

    Raises RequestError.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise RequestError("the body must be a JSON object")
    if asked.get("model") not in (None, model):
        raise RequestError(f"no model {asked['model']!r} here; there is {model!r}", 404, "model", "model_not_found")
    for name in REFUSED:
        if asked.get(name):
            raise RequestError(f"{name} is not supported", param=name)
    if asked.get("n") not in (None, 1):
        raise RequestError("one choice is made for a request: n must be 1", param="n")
    if (asked.get("response_format") or {"type": "text"}) != {"type": "text"}:
        raise RequestError("response_format is not supported, but for text", param="response_format")
    options = asked.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RequestError("stream_options must be an object", param="stream_options")
    name = "max_completion_tokens" if asked.get("max_completion_tokens") is not None else "max_tokens"
    seed = asked.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63):
        raise RequestError("seed must be a whole number from 0 on", param="seed")
    return ChatRequest(
        messages=_messages(asked.get("messages"), _sampling(asked), folder),
        max_new_tokens=int(_number(asked, name, default_max_new_tokens, 1, MAX_NEW_TOKENS, whole=True)),
        temperature=_number(asked, "temperature", 0.0, 0.0, 2.0),
        top_p=_number(asked, "top_p", 1.0, 1e-6, 1.0),
        stop=_stop(asked.get("stop")),
        seed=seed,
        stream=asked.get("stream") is True,
        stream_usage=bool(options.get("include_usage")),
    )


def _number(asked: dict, name: str, default: float, low: float, high: float, whole: bool = False) -> float:
    value = asked.get(name)
    value = default if value is None else value
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise RequestError(f"{name} must be {kind} from {low:g} to {high:g}, not {value!r:.40}", param=name)
    return value


def _stop(value) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    good = isinstance(stops, list) and all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_LENGTH for s in stops)
    if not good or len(stops) > MAX_STOPS:
        raise RequestError(
            f"stop must be a string or at most {MAX_STOPS} strings of 1 to {MAX_STOP_LENGTH} characters", param="stop"
        )
    return tuple(stops)


def _sampling(asked: dict) -> dict:
    """How video files are to be sampled, in vLLM's words: `{"media_io_kwargs": {"video": {"num_frames", "fps"}}}`."""
    wanted = asked.get("media_io_kwargs") or {}
    video = wanted.get("video") or {} if isinstance(wanted, dict) else None
    if not isinstance(video, dict) or set(wanted) - {"video"} or set(video) - {"num_frames", "fps"}:
        raise RequestError("media_io_kwargs knows video: num_frames, fps", param="media_io_kwargs")
    found = {}
    if "num_frames" in video:
        found["max_frames"] = _number(video, "num_frames", 8, *VIDEO_NUMBERS["max_frames"], whole=True)
    if "fps" in video:
        found["fps"] = _number(video, "fps", 2.0, *VIDEO_NUMBERS["fps"])
    return found


def _messages(asked, sampling: dict, folder: Path) -> list[dict]:
    if not isinstance(asked, list) or not asked:
        raise RequestError("messages must be a list of at least one message", param="messages")
    messages = []
    for place, message in enumerate(asked):
        where = f"messages[{place}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise RequestError(f"{where}: role must be one of {', '.join(ROLES)}", param=where)
        content = message.get("content")
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(content, list) or not content:
            raise RequestError(f"{where}: content must be a string or a list of parts", param=where)
        items = [_item(part, f"{where}.content[{n}]", sampling, folder) for n, part in enumerate(content)]
        messages.append({"role": ROLES[message["role"]], "content": items})
    if messages[-1]["role"] != "user":
        raise RequestError("the last message must be the user's", param="messages")
    return messages


def _item(part, where: str, sampling: dict, folder: Path) -> dict:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "image_url":
        return {"type": "image", "image": _content(_address(part, kind, where), where)}
    if kind == "video_url":
        return {"type": "video", **_video(_address(part, kind, where), where, sampling, folder), **_own(part, where)}
    raise RequestError(f"{where}: parts are text, image_url and video_url, not {kind!r:.40}", param=where)


def _own(part: dict, where: str) -> dict:
    """What a video's part says of its sampling, beside `video_url`; of frames their times."""
    found = {
        name: _number({f"{where}.{name}": part[name]}, f"{where}.{name}", 0, low, high, whole=name == "max_frames")
        for name, (low, high) in VIDEO_NUMBERS.items()
        if part.get(name) is not None
    }
    times = part.get("timestamps")
    if times is None:
        return found
    if not isinstance(times, list) or not all(isinstance(t, (int, float)) and abs(t) <= MAX_SECONDS for t in times):
        raise RequestError(f"{where}.timestamps must be a list of seconds, one a frame", param=where)
    return found | {"timestamps": times}


def _address(part: dict, kind: str, where: str) -> str:
    value = part.get(kind)
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise RequestError(f"{where}: {kind} must be an object with a url", param=where)
    if not url.startswith("data:"):
        raise RequestError(
            f"{where}: only data URLs are opened (data:image/png;base64,...), not addresses or files: {url[:60]!r}",
            param=where,
        )
    return url


def _video(url: str, where: str, sampling: dict, folder: Path) -> dict:
    """A video file, or frames as vLLM takes them: `data:video/jpeg;base64,FRAME,FRAME,...`; here also as PNG."""
    head, _, data = url.partition(",")
    if head.startswith(("data:video/jpeg", "data:video/png")):
        return {"video": [_content(f"{head},{frame}", where) for frame in data.split(",")]}
    path = folder / f"{uuid.uuid4().hex}.video"
    path.write_bytes(_content(url, where))
    return {"video": str(path), **sampling}


def _content(url: str, where: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise RequestError(f"{where}: a data URL must be data:TYPE;base64,DATA", param=where)
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{where}: the data URL is not base64: {error}", param=where) from error
    if not content:
        raise RequestError(f"{where}: the data URL is empty", param=where)
    return content


class Completion:
    """Writes the answer to one request: `id` and time are the same in all of its chunks."""

    def __init__(self, model: str):
        self.model, self.id, self.created = model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def whole(self, reply) -> dict:
        """The answer at once. `reply`: text, stopped, prompt_tokens, media_tokens, tokens."""
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(reply)}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(reply)}

    def chunk(self, delta: dict, finish: str | None = None) -> dict:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, reply) -> dict:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(reply)}

    def _head(self, kind: str) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def finish_reason(reply) -> str:
    return "stop" if reply.stopped else "length"


def usage(reply) -> dict:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.tokens,
        "total_tokens": reply.prompt_tokens + reply.tokens,
        "prompt_tokens_details": {"media_tokens": reply.media_tokens},
    }
