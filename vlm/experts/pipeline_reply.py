"""One reply from whatever generates: a function of messages, or a transformers `pipeline("image-text-to-text")`."""

from collections.abc import Callable
from typing import Any

from vlm.experts.conversation import Messages


def reply_of(generate: Callable[..., Any], messages: Messages) -> str:
    """The text that `generate` answers to `messages`. Raises TypeError for an answer that holds no text."""
    is_pipeline = hasattr(generate, "task") and hasattr(generate, "model")
    answer = generate(text=messages, return_full_text=False) if is_pipeline else generate(messages)
    for _ in range(3):  # [[{"generated_text": ...}]] at most
        if isinstance(answer, list) and answer:
            answer = answer[-1]
    if isinstance(answer, dict) and "generated_text" in answer:
        answer = answer["generated_text"]
        if isinstance(answer, list) and answer:  # the whole conversation: the last turn is the reply
            answer = answer[-1].get("content")
    if not isinstance(answer, str):
        raise TypeError(f"generate must answer with text, not {type(answer).__name__}")
    return answer
