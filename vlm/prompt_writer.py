"""One chat template with one tokenizer: messages become a rendered prompt and the spans of the assistant's words.

What depends only on template and tokenizer (family, guard, encoder, probes) is worked out once and kept, since `encode`
runs for every training sample.
"""

import re
from dataclasses import dataclass

from vlm.chat import (
    GENERATION_TAG,
    LITERAL,
    MEDIA,
    SENTINEL,
    ControlGuard,
    Conversation,
    control_strings,
    flatten,
    render,
    takes_strings,
)
from vlm.label_mask import assistant_spans, family_markers, find_family, spans_by_growth
from vlm.prompt_tokens import TextEncoder

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


@dataclass
class Prompt:
    """A rendered conversation: `text` with sentinels, what they stand for, and labelled character ranges."""

    text: str
    chat: Conversation
    spans: list[tuple[int, int]] | None = None


class PromptWriter:
    """Renders conversations.

    Args:
        tokenizer: Any; its special tokens are what a user's text cannot write.
        chat_template: Jinja source.
        special_tokens: Strings by role: image, video, image_start, image_end.

    Attributes:
        chunks: What one image or tubelet looks like in the prompt, by kind: "<img><image></img>".
        token_ids: Id of the placeholder in it, by kind; without a video token both are the image's.
    """

    def __init__(self, tokenizer, chat_template: str, special_tokens: dict[str, str]):
        self.chat_template = chat_template
        self.special_tokens = special_tokens
        self.eos_token = tokenizer.eos_token
        # templates add these to strings; a tokenizer without one has an empty one
        self.variables = {"bos_token": "", "eos_token": "", **tokenizer.special_tokens_map}
        self.family = find_family(chat_template)
        self.has_tags = bool(GENERATION_TAG.search(chat_template))
        markers = family_markers(self.family, self.eos_token)
        control = control_strings(tokenizer, chat_template, (*markers, *special_tokens.values()))
        self.guard = ControlGuard(control)
        self.encoder = TextEncoder(tokenizer, control)
        self.as_items = not takes_strings(chat_template, self.variables)

        ids = {role: token_id(tokenizer, text) for role, text in special_tokens.items()}
        if ids["image"] is None:
            raise ValueError(f"the tokenizer has no token {special_tokens['image']!r}: add it (vlm.build does)")
        placeholder = {"image": "image", "video": "image" if ids["video"] is None else "video"}
        wrapped = ids["image_start"] is not None and ids["image_end"] is not None
        start, end = (special_tokens["image_start"], special_tokens["image_end"]) if wrapped else ("", "")
        self.chunks = {kind: start + special_tokens[role] + end for kind, role in placeholder.items()}
        self.token_ids = {kind: ids[role] for kind, role in placeholder.items()}

    def write(self, messages: list[dict], want_spans: bool, variables: dict) -> Prompt:
        """Renders one conversation.

        Args:
            want_spans: Also find the assistant's words.
            variables: Seen by the template: add_generation_prompt, enable_thinking, tools, ...

        Raises:
            SampleError: bad_message, media_dropped.
            RadioVLMError: when spans are wanted and this template does not let them be found.
        """
        variables = {**self.variables, **variables}
        chat = flatten(messages, self.guard)
        chat.messages = self._thinking_switch(chat.messages, variables.get("enable_thinking"))
        rendered = render(chat, self.chat_template, self.as_items, want_spans and self.has_tags, variables)
        spans = rendered.spans
        if want_spans and not self.has_tags:
            spans = self._find_spans(rendered.text, chat, variables)
        return Prompt(rendered.text, chat, spans)

    def readable(self, prompt: Prompt) -> str:
        """The prompt with literals back in place and one tag for each media item."""

        def shown(match: re.Match) -> str:
            if (code := ord(match[0])) < MEDIA:
                return prompt.chat.literals[code - LITERAL]
            return self.special_tokens[prompt.chat.media[code - MEDIA].kind]

        return SENTINEL.sub(shown, prompt.text)

    def _find_spans(self, text: str, chat: Conversation, variables: dict) -> list[tuple[int, int]]:
        """Spans from the turn table; for an unknown family from how the rendering grows with each turn."""
        turns = [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
        if self.family is not None:
            said = [chat.messages[i] for i in turns]
            words = [(message["content"], any(message.get(name) for name in REASONING_FIELDS)) for message in said]
            return assistant_spans(text, self.family, self.eos_token, words)

        def rendering(count: int, prompt: bool) -> str:
            part = Conversation(chat.messages[:count])
            part.media = [None] * sum(ord(c) >= MEDIA for message in part.messages for c in message["content"])
            settings = {**variables, "add_generation_prompt": prompt}
            return render(part, self.chat_template, self.as_items, False, settings).text

        return spans_by_growth([(rendering(i, True), rendering(i + 1, False)) for i in turns], text)

    def _thinking_switch(self, messages: list[dict], enable_thinking: bool | None) -> list[dict]:
        """For templates steered by `/think` and `/no_think` in the text (Nemotron Nano v2), not by a variable."""
        if enable_thinking is None or "/no_think" not in self.chat_template:
            return messages
        switch = "/think" if enable_thinking else "/no_think"
        if messages[0]["role"] == "system":
            return [{**messages[0], "content": f"{messages[0]['content']} {switch}"}, *messages[1:]]
        return [{"role": "system", "content": switch}, *messages]


def token_id(tokenizer, text: str) -> int | None:
    """The id of a token by its string; None when the tokenizer has no such token."""
    found = tokenizer.convert_tokens_to_ids(text)
    return None if found is None or found == tokenizer.unk_token_id else int(found)
