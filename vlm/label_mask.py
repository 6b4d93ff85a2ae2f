"""Which characters of a rendered prompt are the assistant's words: a table of turn markers, one row a template family.

Templates with `{% generation %}` tags say it themselves; for all others the table does. Markers are looked for in text
whose user-written look-alikes are already swapped out (`vlm.chat`), so a quoted marker cannot open or close a turn. A
span holds the words and the end-of-turn token, so the model learns to stop.
"""

import re
from dataclasses import dataclass

from vlm.errors import RadioVLMError

_EMPTY_THINK = re.compile(r"(?:<think>\s*</think>\s*)+")
_OPEN_THINK = re.compile(r"<think>\s*")


@dataclass(frozen=True)
class TurnFamily:
    """How one family of chat templates writes turns.

    Attributes:
        name: For messages and tests.
        signs: All must occur in the template's source for the family to be chosen.
        header: Regular expression for what stands before the assistant's words.
        end: What ends the turn; None: the tokenizer's eos token.
        markers: Further strings that a user's text must not be able to forge.
    """

    name: str
    signs: tuple[str, ...]
    header: str
    end: str | None
    markers: tuple[str, ...] = ()


# Order matters: the first family whose signs all occur wins.
FAMILIES = (
    TurnFamily(
        "nemotron-v2",
        ("<SPECIAL_11>", "<SPECIAL_12>"),
        r"<SPECIAL_11>Assistant\n",
        "<SPECIAL_12>",
        ("<SPECIAL_10>", "<SPECIAL_11>"),
    ),
    TurnFamily(
        "phi4",
        ("<|im_sep|>",),
        r"<\|im_start\|>assistant<\|im_sep\|>",
        "<|im_end|>",
        ("<|im_start|>", "<|im_sep|>"),
    ),
    TurnFamily("chatml", ("<|im_start|>",), r"<\|im_start\|>assistant\n", "<|im_end|>", ("<|im_start|>",)),
    TurnFamily(
        "llama3",
        ("<|start_header_id|>",),
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n",
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>"),
    ),
    TurnFamily(
        "llama4",
        ("<|header_start|>",),
        r"<\|header_start\|>assistant<\|header_end\|>\n\n",
        "<|eot|>",
        ("<|header_start|>", "<|header_end|>"),
    ),
    TurnFamily("gemma", ("<start_of_turn>",), r"<start_of_turn>model\n", "<end_of_turn>", ("<start_of_turn>",)),
    TurnFamily(
        "granite",
        ("<|start_of_role|>",),
        r"<\|start_of_role\|>assistant[^<]*<\|end_of_role\|>",
        "<|end_of_text|>",
        ("<|start_of_role|>", "<|end_of_role|>"),
    ),
    TurnFamily(
        "command-r",
        ("<|CHATBOT_TOKEN|>",),
        r"<\|START_OF_TURN_TOKEN\|><\|CHATBOT_TOKEN\|>",
        "<|END_OF_TURN_TOKEN|>",
        ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>"),
    ),
    TurnFamily(
        "phi3",
        ("<|end|>", "<|assistant|>"),
        r"<\|assistant\|>\n?",
        "<|end|>",
        ("<|assistant|>", "<|user|>", "<|system|>"),
    ),
    TurnFamily("zephyr", ("<|assistant|>",), r"<\|assistant\|>\n?", None, ("<|assistant|>", "<|user|>", "<|system|>")),
    TurnFamily("deepseek", ("<｜Assistant｜>",), r"<｜Assistant｜>", None, ("<｜Assistant｜>", "<｜User｜>")),
    TurnFamily("mistral", ("[/INST]",), r"\[/INST\]", None, ("[INST]", "[/INST]")),
    TurnFamily("vicuna", ("ASSISTANT:",), r"ASSISTANT:", None, ("ASSISTANT:", "USER:")),
)


def find_family(chat_template: str) -> TurnFamily | None:
    """The family of a template by the constant strings in its source; None when no row fits."""
    return next((family for family in FAMILIES if all(sign in chat_template for sign in family.signs)), None)


def family_markers(family: TurnFamily | None, eos_token: str | None) -> tuple[str, ...]:
    """The strings a message must not be able to forge under this family."""
    if family is None:
        return ()
    return tuple(text for text in (*family.markers, family.end or eos_token) if text)


def assistant_spans(
    text: str, family: TurnFamily, eos_token: str | None, turns: list[tuple[str, bool]]
) -> list[tuple[int, int]]:
    """Character ranges [start, end) of the assistant's words plus end-of-turn marker in a rendered prompt.

    Args:
        text: Rendered, with everything forged by users swapped out.
        turns: For each assistant message its content, and whether it carries reasoning in a field of its own.

    A header without an end marker behind it (a generation prompt) opens no span.
    """
    end_marker = family.end or eos_token
    if not end_marker:
        raise RadioVLMError(f"the {family.name} template ends turns with eos_token, but the tokenizer has none: set it")
    spans, position = [], 0
    while header := re.compile(family.header).search(text, position):
        stop = text.find(end_marker, header.end())
        if stop < 0:
            break
        position = stop + len(end_marker)
        spans.append((header.end(), position))
    if len(spans) != len(turns):  # the template merged or dropped turns: nothing is known about single ones
        return spans
    return [(_behind_scaffold(text, start, *turn), end) for (start, end), turn in zip(spans, turns)]


def _behind_scaffold(text: str, start: int, content: str, has_reasoning: bool) -> int:
    """Where the words begin: behind a reasoning block or opening that the template wrote, not the assistant.

    At inference the prompt already holds it ("<think></think>" for thinking off, "<think>\\n" for on), so it is no
    target. Reasoning given in the message is the assistant's and stays.
    """
    if empty := _EMPTY_THINK.match(text, start):
        return empty.end()
    opening = _OPEN_THINK.match(text, start)
    if opening and not has_reasoning:
        own = content.lstrip().startswith("<think>")
        if not own or text.startswith("<think>", opening.end()):
            return opening.end()
    return start


def spans_by_growth(texts: list[tuple[str, str]], full: str) -> list[tuple[int, int]]:
    """Spans for a template no family fits, from renderings of growing prefixes of the conversation.

    `texts` holds, for each assistant turn, (everything before it with the generation prompt, everything up to it).

    Raises:
        RadioVLMError: when a rendering is not a prefix of the next one, so the words cannot be told apart this way.
    """
    spans = []
    for before, upto in texts:
        if not (full.startswith(upto.rstrip()) and upto.startswith(before)):
            known = ", ".join(family.name for family in FAMILIES)
            raise RadioVLMError(
                "cannot tell the assistant's words apart in this chat template: it rewrites earlier turns and belongs "
                f"to no known family ({known}). Add {{% generation %}} tags to it or a row to vlm/label_mask.py"
            )
        spans.append((len(before), len(upto.rstrip())))
    return spans
