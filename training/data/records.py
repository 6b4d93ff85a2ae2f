"""One record of a data file -> Sample: the shapes in which people write conversations, told apart by their keys.

A file format (sources/) knows where records stand; this file knows what a record means. Shapes read:
- messages:       {"messages": [{"role", "content": str or items}], "images"?: [...], "videos"?, "documents"?}
- LLaVA:          {"conversations": [{"from": "human"|"gpt", "value": "<image>\nWhat ...?"}],
  "image"|"images"|"video"|"videos"|"document"|"documents"|"volume"|"volumes"}
- pairs:          {"texts": [{"user", "assistant"}], "images": [...]}  (the Cauldron, FineVision)
- question:       {"question", "answers" or "answer", "options"?, "image"|"video"|...}  (VQA style label files)
- caption:        {"text" or "caption", "image" or "file_name"}  (image folders with metadata.jsonl)

In LLaVA style text (and in plain-string messages of a record that lists its media) `<image>` and `<video>` in user
turns stand for the record's media, in order, and their numbers must agree; `<document>` and `<volume>` do in records
that list such. Everywhere else, and in typed items always, they are just text. A medium listed beside the conversation
is a path, or an object with the keys of an item: {"document": "x.pdf", "pages": "1-3"}, {"volume": "ct/7", "window":
"lung"}. A volume may also be {channel: path}; a number called "volume" (of a journal, say) is no medium.

Tools: assistant turns may carry `tool_calls` (as OpenAI writes them; then `content` may be missing), answered by turns
of the role `tool`; LLaVA style writes them as turns from "function_call" and "observation". A record's `tools`, a list
of function definitions or its JSON text, goes to the chat template.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

from training.data.sample import MEDIA_TYPES, Sample
from vlm.errors import SampleError
from vlm.media_types import ALWAYS_TAGS

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ipython": "tool",
    "function_call": "assistant",  # a turn that says nothing but one call
}
MEDIA_KEYS = {
    "image": ("image", "images", "file_name"),
    "video": ("video", "videos"),
    "document": ("document", "documents"),
    "volume": ("volume", "volumes"),
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class RecordError(Exception):
    """What is wrong with a record, as (message, reason code); `parse_record` adds the place."""


def parse_record(record: Any, *, default_id: str, source: str, base_dir: Path | None, origin: str) -> Sample:
    """A decoded record -> Sample. Raises SampleError(reason="schema" or "tag_mismatch") naming `origin` and the id."""
    sample_id = default_id
    try:
        if not isinstance(record, dict):
            raise RecordError(f"a record is an object with keys, this is {type(record).__name__}", "schema")
        record = {key: value for key, value in record.items() if value is not None}
        if isinstance(record.get("id"), (str, int)) and str(record["id"]):
            sample_id = str(record["id"])
        meta = record.get("meta", {})
        if not isinstance(meta, dict):
            raise RecordError("'meta' must be an object", "schema")
        messages, used = _messages(record)
        tools = _tools(record.get("tools"))
        used = used | {"id", "source", "meta"} | ({"tools"} if tools else set())
        rest = {key: value for key, value in record.items() if key not in used}
        if "options" in rest and "answer" in rest:  # the letter is as right as the words
            rest["answers"] = [rest["answer"], *rest.get("answers", [])]
        name, template = str(record.get("source") or source), {"tools": tools} if tools else {}
        return Sample(sample_id, name, messages, {**rest, **meta}, base_dir, origin, template)
    except RecordError as error:
        message, reason = error.args
        raise SampleError(message, sample_id, origin, reason) from None


def _messages(record: dict[str, Any]) -> tuple[list[dict[str, Any]], set[str]]:
    """The conversation and the keys that it used up."""
    media, media_keys = _media(record)
    if "messages" in record:
        return _from_messages(record["messages"], media), {"messages"} | media_keys
    if "conversations" in record:
        turns = [
            {**_others(turn), "role": _get(turn, "from", "role"), "content": _get(turn, "value", "content")}
            for turn in _list(record["conversations"], "conversations")
        ]
        return _from_messages(turns, media, always_tags=True), {"conversations"} | media_keys
    if "texts" in record:
        return _with_leading_media(_from_pairs(record["texts"]), media), {"texts"} | media_keys
    if "question" in record and ("answers" in record or "answer" in record):
        # The gold answers stay in `meta` as well: evaluation reads them there.
        return _with_leading_media(_from_question(record), media), {"question"} | media_keys
    for key in ("text", "caption"):
        if key in record and media:
            turns = [_turn("user", []), _turn("assistant", [_text(record[key])])]
            return _with_leading_media(turns, media), {key} | media_keys
    raise RecordError(
        "no conversation found: expected 'messages', 'conversations', 'texts', 'question' with 'answers', or 'text' "
        f"with an image; the keys are {sorted(record)} (a source's `columns: {{ours: theirs}}` gives them our names)",
        "schema",
    )


def _media(record: dict[str, Any]) -> tuple[list[dict[str, Any]], set[str]]:
    """Media listed beside the conversation, as content items, and the keys they came from."""
    items, used = [], set()
    for kind, keys in MEDIA_KEYS.items():
        for key in keys:
            if key in record and not (kind == "volume" and isinstance(record[key], (int, float))):
                used.add(key)
                value = record[key]
                for one in value if isinstance(value, list) else [value]:
                    is_item = isinstance(one, dict) and kind in one
                    items.append({**one, "type": kind} if is_item else {"type": kind, kind: one})
    return items, used


def _from_messages(turns: Any, media: list[dict[str, Any]], always_tags: bool = False) -> list[dict[str, Any]]:
    turns = _list(turns, "messages")
    if not turns:
        raise RecordError("the conversation is empty", "schema")
    tagged = always_tags or bool(media)
    # "<document>" is a common word of prompts about text; nobody writes "<image>" in passing
    listed = {item["type"] for item in media}
    tags = _tags(tuple(kind for kind in MEDIA_TYPES if kind in ALWAYS_TAGS or kind in listed))
    messages = []
    for turn in turns:
        role = ROLES.get(_get(turn, "role"))
        if role is None:
            raise RecordError(f"unknown role {turn['role']!r}, known: {', '.join(sorted(ROLES))}", "schema")
        calls = _tool_calls(turn) if role == "assistant" else []
        if turn["role"] == "function_call":
            turn = {**turn, "content": ""}
        content = turn.get("content") if calls else _get(turn, "content")
        if content is None or isinstance(content, str):
            content = content or ""
            items = _split_tags(content, tags) if tagged and role == "user" else [_text(content)]
        else:
            items = [_item(item) for item in _list(content, "content")]
        extra = {"tool_calls": calls} if calls else {}
        messages.append({**{k: v for k, v in turn.items() if v is not None}, **extra, **_turn(role, items)})
    _fill(messages, media)
    return messages


@functools.cache
def _tags(kinds: tuple[str, ...]) -> re.Pattern:
    return re.compile(rf"\n?<({'|'.join(kinds)})>\n?")


def _others(turn: Any) -> dict[str, Any]:
    """What a LLaVA style turn holds beside its words."""
    return {key: value for key, value in turn.items() if key not in ("from", "value")} if isinstance(turn, dict) else {}


def _tools(value: Any) -> list[dict[str, Any]] | None:
    """Function definitions for the template; None for another thing that happens to be called `tools`."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, list) or not value or not all(isinstance(tool, dict) for tool in value):
        return None
    return value if all("function" in tool or "name" in tool for tool in value) else None


def _tool_calls(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of a turn as {"type": "function", "function": {"name", "arguments"}}; arguments as an object where they
    are written as its JSON text, since templates write them as JSON again.
    """
    calls = turn.get("tool_calls")
    if turn["role"] == "function_call":
        try:
            calls = json.loads(_get(turn, "content"))
        except (ValueError, TypeError):
            raise RecordError(f"a function_call is no JSON: {turn['content']!r:.80}", "schema") from None
        calls = calls if isinstance(calls, list) else [calls]
    found = []
    for call in _list(calls or [], "tool_calls"):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RecordError(f"a tool call needs a function with a name, this is {call!r:.80}", "schema")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                parsed = json.loads(arguments)
            except ValueError:
                parsed = None
            arguments = parsed if isinstance(parsed, dict) else arguments
        more = {"id": call["id"]} if call.get("id") is not None else {}
        found.append({**more, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return found


def _from_pairs(texts: Any) -> list[dict[str, Any]]:
    messages = []
    for pair in _list(texts, "texts"):
        messages.append(_turn("user", [_text(_get(pair, "user"))]))
        messages.append(_turn("assistant", [_text(_get(pair, "assistant"))]))
    if not messages:
        raise RecordError("'texts' is empty", "schema")
    return messages


def _from_question(record: dict[str, Any]) -> list[dict[str, Any]]:
    question = _get(record, "question")
    options = record.get("options")
    if options:
        question = "\n".join([str(question), *(f"{letter}. {text}" for letter, text in zip(LETTERS, options))])
    answers = record["answer"] if options and "answer" in record else record.get("answers", record.get("answer"))
    answer = answers[0] if isinstance(answers, list) and answers else answers
    if answer in (None, []):
        raise RecordError("'answers' is empty", "schema")
    return [_turn("user", [_text(str(question))]), _turn("assistant", [_text(str(answer))])]


def _with_leading_media(messages: list[dict[str, Any]], media: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Formats without placeholders: all media stand before the first question."""
    messages[0]["content"][:0] = [_item(item) for item in media]
    return messages


def _split_tags(text: str, tags: re.Pattern) -> list[dict[str, Any]]:
    """Text with `<image>`/... tags -> items; media still unknown. A line break beside a tag only separated it."""
    items: list[dict[str, Any]] = []
    end = 0
    for match in tags.finditer(text):
        if match.start() > end:
            items.append(_text(text[end : match.start()]))
        items.append({"type": match[1]})
        end = match.end()
    if end < len(text) or not items:
        items.append(_text(text[end:]))
    return items


def _fill(messages: list[dict[str, Any]], media: list[dict[str, Any]]) -> None:
    """Gives every placeholder its medium in place. Raises RecordError("tag_mismatch") when the numbers differ."""
    holes = [
        item for message in messages for item in message["content"] if item["type"] in MEDIA_TYPES and len(item) == 1
    ]
    counts = {kind: sum(item["type"] == kind for item in media) for kind in MEDIA_TYPES}
    tags = {kind: sum(item["type"] == kind for item in holes) for kind in MEDIA_TYPES}
    if tags == {**counts, "image": counts["video"], "video": 0} and not counts["image"]:
        for hole in holes:  # LLaVA-Video writes `<image>` for its videos
            hole["type"] = "video" if hole["type"] == "image" else hole["type"]
    elif tags != counts:
        kind = next(kind for kind in MEDIA_TYPES if tags[kind] != counts[kind])
        raise RecordError(
            f"number of <{kind}> tags: {tags[kind]}, of {kind}s: {counts[kind]}; they must be equal",
            "tag_mismatch",
        )
    queues = {kind: [item for item in media if item["type"] == kind] for kind in MEDIA_TYPES}
    for hole in holes:
        hole |= queues[hole["type"]].pop(0)
    for message in messages:
        message["content"] = [_item(item) for item in message["content"]]


def _item(item: Any) -> dict[str, Any]:
    """One content item, checked; null keys (Arrow fills them in) dropped."""
    if isinstance(item, str):
        return _text(item)
    if not isinstance(item, dict):
        raise RecordError(f"a content item is an object with 'type', this is {type(item).__name__}", "schema")
    item = {key: value for key, value in item.items() if value is not None}
    kind = item.get("type")
    if kind == "text":
        return {**item, **_text(item.get("text"))}
    if kind not in MEDIA_TYPES:
        raise RecordError(f"unknown content type {kind!r}, known: text, {', '.join(MEDIA_TYPES)}", "schema")
    for key in ("path", "url"):  # as transformers' own chat format spells it
        if kind not in item and key in item:
            item[kind] = item.pop(key)
    value = item.get(kind)
    if isinstance(value, (bool, int, float)) or value == "":
        raise RecordError(f"{kind!r} must be a path or a picture, this is {value!r}", "schema")
    return item


def _text(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise RecordError(f"text must be a string, this is {type(value).__name__}", "schema")
    return {"type": "text", "text": value}


def _turn(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _get(turn: Any, *keys: str) -> Any:
    if not isinstance(turn, dict):
        raise RecordError(f"a turn is an object, this is {type(turn).__name__}", "schema")
    for key in keys:
        if turn.get(key) is not None:
            return turn[key]
    raise RecordError(f"a turn lacks {' / '.join(map(repr, keys))}; it has {sorted(turn)}", "schema")


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(f"'{name}' must be a list, this is {type(value).__name__}", "schema")
    return value
