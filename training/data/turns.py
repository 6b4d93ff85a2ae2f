"""What a recipe says about the conversations of a source: keys called otherwise, a system prompt, reasoning on or off.

A reasoning trace is text between `<think>` and `</think>` at the head of an answer (the opening may be missing: some
templates write it themselves), or a field of its own beside the content (`reasoning_content`, as Qwen3 has it).
"""

import re
from dataclasses import replace
from typing import Any

from training.data.sample import Sample
from vlm.prompt_writer import REASONING_FIELDS

TRACE = re.compile(r"(?:\A(?:(?!<think>).)*?</think>|<think>.*?(?:</think>|\Z))\s*", re.DOTALL)


def rename_columns(record: Any, columns: dict[str, str]) -> Any:
    """The record with each key `columns[ours]` under the name `ours`; what a record lacks stays away."""
    if not isinstance(record, dict):
        return record
    found = {ours: key for ours, key in columns.items() if key in record}
    theirs = set(found.values())
    kept = {key: value for key, value in record.items() if key not in theirs and key not in found}
    return kept | {ours: record[key] for ours, key in found.items()}


def with_system(sample: Sample, system: str) -> Sample:
    """The sample with `system` in front; its own system turn wins."""
    if sample.messages and sample.messages[0]["role"] == "system":
        return sample
    turn = {"role": "system", "content": [{"type": "text", "text": system}]}
    return replace(sample, messages=[turn, *sample.messages])


def with_reasoning(sample: Sample, reasoning: str) -> Sample:
    """`off`: without traces, and the template is told so. `on`: the template is told that there is thinking where the
    last answer has a trace; where it has none, it is told that there is none, since a model that is asked to think must
    not learn to answer at once.
    """
    if reasoning == "off":
        messages = [_without_trace(message) for message in sample.messages]
        return replace(sample, messages=messages, template={**sample.template, "enable_thinking": False})
    answers = [message for message in sample.messages if message["role"] == "assistant"]
    thinks = bool(answers) and has_trace(answers[-1])
    return replace(sample, template={**sample.template, "enable_thinking": thinks})


def has_trace(message: dict[str, Any]) -> bool:
    """Whether an assistant turn carries a reasoning trace."""
    texts = (item["text"] for item in message["content"] if item["type"] == "text")
    return any(message.get(name) for name in REASONING_FIELDS) or any("</think>" in text for text in texts)


def _without_trace(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] != "assistant":
        return message
    content = [
        {**item, "text": TRACE.sub("", item["text"])} if item["type"] == "text" else item for item in message["content"]
    ]
    return {key: value for key, value in message.items() if key not in REASONING_FIELDS} | {"content": content}
