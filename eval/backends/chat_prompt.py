"""The text of a prompt as a transformers processor wants it: its chat template, or a plain form where it has none."""

from __future__ import annotations

from typing import Any

from eval.backends.base import Messages

TEMPLATE, PLAIN = "chat template", "plain: the image tokens, then the words of the only question"
_PROBE = "what is asked"


class ChatPrompt:
    """Writes prompts. `form` says which way, for the results file."""

    def __init__(self, processor: Any) -> None:
        """`processor`: or a tokenizer, for models that read text only."""
        self.processor = processor
        tokenizer = getattr(processor, "tokenizer", processor)
        self.image_token = getattr(processor, "image_token", None) or getattr(tokenizer, "image_token", None)
        has_template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
        self.form = TEMPLATE if has_template else PLAIN
        # A processor whose template came with the tokenizer would look for its own alone.
        own = getattr(processor, "chat_template", None)
        self._template = None if own else getattr(tokenizer, "chat_template", None)
        self._as_items = has_template is not None and self._takes_items()

    def text(self, messages: Messages) -> str:
        """The prompt up to where the answer begins. `messages`: opened, see `open_media`.

        Raises ValueError where the model knows no such conversation.
        """
        if self.form == PLAIN:
            return self._plain(messages)
        kinds = [
            {**m, "content": [i if i["type"] == "text" else {"type": i["type"]} for i in m["content"]]}
            for m in messages
        ]
        if not self._as_items:
            kinds = [{**message, "content": self._joined(message["content"])} for message in kinds]
        return self._rendered(kinds)

    def _rendered(self, messages: Messages) -> str:
        chosen = {} if self._template is None else {"chat_template": self._template}
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **chosen)

    def _takes_items(self) -> bool:
        """Whether the template reads typed items; one for plain strings shows Python's brackets, or refuses."""
        items = [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}]
        try:
            shown = self._rendered(items)
        except Exception:  # a template refuses in its own words
            return False
        return _PROBE in shown and "{'type'" not in shown and '{"type"' not in shown

    def _joined(self, content: list[dict[str, Any]]) -> str:
        return "".join(item["text"] if item["type"] == "text" else f"{self._placeholder()}\n" for item in content)

    def _plain(self, messages: Messages) -> str:
        if sum(message["role"] == "user" for message in messages) != 1 or len(messages) != 1:
            raise ValueError(
                "the checkpoint has no chat template, so it can be asked single questions only, not "
                f"{len(messages)} turns ({', '.join(message['role'] for message in messages)})"
            )
        content = messages[0]["content"]
        pictures = sum(item["type"] == "image" for item in content)
        words = "".join(item["text"] for item in content if item["type"] == "text")
        return (self._placeholder() * pictures if pictures else "") + words

    def _placeholder(self) -> str:
        if not self.image_token:
            raise ValueError(f"{type(self.processor).__name__} names no image token, and no template writes one")
        return self.image_token
