"""From messages to one rendered prompt in which nobody but the chat template can write control tokens.

A user's or a scanned page's literal `<image>` or `<|im_end|>` must stay text. Before rendering, every such string in a
message is swapped for one private-use character, media items for another; after rendering they are found again by
position. What stands at those places is then tokenised as plain text, or replaced by the media's placeholders.
"""

import re
from dataclasses import dataclass, field

from transformers.utils.chat_template_utils import render_jinja_template

from vlm.errors import SampleError

# Planes 15 and 16 of Unicode are private use: literal number i is chr(LITERAL + i), media number i is chr(MEDIA + i).
LITERAL, MEDIA = 0xF0000, 0x100000
SENTINEL = re.compile("[\U000f0000-\U0010ffff]")
# Tokens an assistant may say itself: masking them as text would make reasoning and tool use unlearnable.
ASSISTANT_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<TOOLCALL>", "</TOOLCALL>")
VIDEO_OPTIONS = ("start", "end", "fps", "max_frames")
GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")

# The default for a tokenizer without a template. Content may be a string or a list of typed items, so other software
# can render it too; the tags mark what the loss sees.
CHATML_TEMPLATE = """\
{%- macro words(content) -%}
{%- if content is string -%}{{- content -}}{%- else -%}
{%- for item in content -%}
{%- if item['type'] == 'text' -%}{{- item['text'] -}}{%- else -%}{{- '<' + item['type'] + '>' -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- words(message['content']) + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- words(message['content']) + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@dataclass
class MediaItem:
    """One image or video of a conversation: what the message gave, not yet opened.

    `options`: of `VIDEO_OPTIONS`, what the message says about a video instead of the processor's settings.
    """

    kind: str  # "image" or "video"
    source: object
    timestamps: list[float] | None = None
    options: dict = field(default_factory=dict)


@dataclass
class Conversation:
    """Messages with string content, sentinels in place of media and of literal control strings."""

    messages: list[dict]
    media: list[MediaItem] = field(default_factory=list)
    literals: list[str] = field(default_factory=list)


@dataclass
class Rendered:
    """A rendered prompt, still with sentinels; `spans` are character ranges of assistant words (None: unknown)."""

    text: str
    spans: list[tuple[int, int]] | None = None


class ControlGuard:
    """Finds control strings in message text: `control` are the tokenizer's and template's own strings."""

    def __init__(self, control: set[str]):
        self._any = self._compile(control)
        self._assistant = self._compile(control - set(ASSISTANT_TOKENS))

    @staticmethod
    def _compile(control: set[str]) -> re.Pattern:
        longest_first = sorted(control, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, longest_first), SENTINEL.pattern]))

    def protect(self, text: str, role: str, literals: list[str]) -> str:
        """`text` with each control string (and each private-use character a user really wrote) as a sentinel."""

        def swap(match: re.Match) -> str:
            if match[0] not in literals:
                literals.append(match[0])
            return chr(LITERAL + literals.index(match[0]))

        return (self._assistant if role == "assistant" else self._any).sub(swap, text)


def control_strings(tokenizer, chat_template: str, extra: tuple[str, ...]) -> set[str]:
    """Special tokens, added tokens the template writes, and `extra` (vision tokens, the family's turn markers).

    Other added tokens (runs of spaces in GPT-NeoX, say) are ordinary text and keep their normal tokenisation.
    """
    added = tokenizer.added_tokens_decoder.values()
    found = {token.content for token in added if token.special or token.content in chat_template}
    return {text for text in {*found, *tokenizer.all_special_tokens, *extra} if text and text.strip()}


def flatten(messages: list[dict], guard: ControlGuard) -> Conversation:
    """Messages with typed content -> a `Conversation`.

    Raises:
        SampleError: `bad_message` for a message, role or item that is not of a known form.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise SampleError("messages must be a non-empty list of {role, content}", reason="bad_message")
    out = Conversation([])
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise SampleError(f"a message must be a dict with a role, not {message!r:.80}", reason="bad_message")
        plain = {k: _protect_all(v, message["role"], guard, out.literals) for k, v in message.items() if k != "content"}
        content = message.get("content")
        items = [{"type": "text", "text": content or ""}] if content is None or isinstance(content, str) else content
        plain["role"] = message["role"]
        plain["content"] = "".join(_item_text(item, message["role"], guard, out) for item in items)
        out.messages.append(plain)
    return out


def _protect_all(value, role: str, guard: ControlGuard, literals: list[str]):
    if isinstance(value, str):
        return guard.protect(value, role, literals)
    if isinstance(value, dict):
        return {k: _protect_all(v, role, guard, literals) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_protect_all(v, role, guard, literals) for v in value]
    return value


def _item_text(item: dict | str, role: str, guard: ControlGuard, out: Conversation) -> str:
    if isinstance(item, str):
        return guard.protect(item, role, out.literals)
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "text" and isinstance(item.get("text"), str):
        return guard.protect(item["text"], role, out.literals)
    if kind == "image_url":  # the OpenAI form
        url = item.get("image_url")
        item, kind = {"image": url.get("url") if isinstance(url, dict) else url}, "image"
    if kind in ("image", "video"):
        source = next((item[key] for key in (kind, "url", "path", "base64") if item.get(key) is not None), None)
        if isinstance(source, str) and source == item.get("base64") and not source.startswith("data:"):
            source = "data:image/png;base64," + source  # the type is read from the data, not from here
        options = {key: item[key] for key in VIDEO_OPTIONS if kind == "video" and item.get(key) is not None}
        out.media.append(MediaItem(kind, source, item.get("timestamps"), options))
        return chr(MEDIA + len(out.media) - 1)
    raise SampleError(
        f"content item {item!r:.80} of role {role!r} is not one of: text, image, image_url, video", reason="bad_message"
    )


def render(
    conversation: Conversation, chat_template: str, as_items: bool, want_spans: bool, variables: dict
) -> Rendered:
    """Runs the template (compiled once per template by transformers).

    Args:
        as_items: Pass content as `[{"type": "text", ...}]`, for templates that accept no plain string.
        want_spans: Read the spans of `{% generation %}` tags.
        variables: Everything else the template sees: special tokens, add_generation_prompt, enable_thinking, tools.

    Raises:
        SampleError: `bad_message` when the template refuses the messages, `media_dropped` when it loses a media item.
    """
    messages = conversation.messages
    if as_items:
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    try:
        texts, spans = render_jinja_template(
            conversations=[messages], chat_template=chat_template, return_assistant_tokens_mask=want_spans, **variables
        )
    except Exception as error:  # jinja raises its own family, templates raise through raise_exception
        raise SampleError(f"the chat template refused these messages: {error}", reason="bad_message") from error
    text = texts[0]
    found = [ord(c) - MEDIA for c in SENTINEL.findall(text) if ord(c) >= MEDIA]
    if found != list(range(len(conversation.media))):
        raise SampleError(
            f"the chat template rendered media items {found} instead of 0..{len(conversation.media) - 1} in order",
            reason="media_dropped",
        )
    return Rendered(text, spans[0] if want_spans else None)


def takes_strings(chat_template: str, variables: dict) -> bool:
    """Whether the template renders plain string content (some multimodal templates only iterate typed items)."""
    probe = "x\U000f0000y"
    for content, answer in ((probe, True), ([{"type": "text", "text": probe}], False)):
        try:
            texts, _ = render_jinja_template(
                conversations=[[{"role": "user", "content": content}]], chat_template=chat_template, **variables
            )
        except Exception:  # noqa: BLE001, S112 - a probe: any refusal means "no"
            continue
        if probe in texts[0]:
            return answer
    return True
