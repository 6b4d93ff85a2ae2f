"""The messages of each form of conversation, made with the functions of chat and evaluation and nothing else."""

from collections.abc import Sequence
from typing import Any

from vlm.experts import ExpertCard
from vlm.experts.conversation import Messages, offer_cards, reply_turn, result_turn

Items = list[dict[str, Any]]


def asked(items: Items, question: str) -> Messages:
    """One user turn: the image and a question."""
    return [{"role": "user", "content": [*items, {"type": "text", "text": question}]}]


def answered_at_once(items: Items, cards: Sequence[ExpertCard], question: str, answer: str) -> Messages:
    """Cards on offer (or none), and an answer without a call."""
    return [*offer_cards(asked(items, question), cards), reply_turn(answer)]


def answered_by_call(
    items: Items, cards: Sequence[ExpertCard], question: str, trigger: str, result: str, answer: str
) -> Messages:
    """Cards, the call, what came back, and the answer."""
    before = offer_cards(asked(items, question), cards)
    return [*before, reply_turn(trigger), result_turn(result, question), reply_turn(answer)]


def asked_further(messages: Messages, pairs: Sequence[tuple[str, str]]) -> Messages:
    """Further questions, answered from what is in the conversation already."""
    more = [turn for question, answer in pairs for turn in (*asked([], question), reply_turn(answer))]
    return [*messages, *more]
