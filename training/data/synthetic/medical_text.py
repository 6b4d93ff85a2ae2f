"""The words of the medical conversations, without the pictures: questions, the expert's result, whole dialogues.

The corpus (`medical.py`) and the text on which the small language model is trained first use the same functions, so
that looking an answer up in an expert's result is nothing new to the model when the pictures come.
"""

import random
from typing import Any

from vlm.experts.chest_xray_tiny import LABELS, ChestXrayTiny
from vlm.experts.conversation import offer_cards, reply_turn, result_turn
from vlm.experts.ct_lesions import CARD, findings_text
from vlm.experts.protocol import ExpertCard

QUESTIONS = {
    "side": "Side?",
    "size": "Size?",
    "number": "Number?",
    "window": "Window?",
    "table": "Table?",
    "modality": "Modality?",
}
NEEDS_EXPERT = ("side", "size", "number")
TRIGGER = f"<{CARD.name}()>"
FINDINGS = ChestXrayTiny.card


def expert_turns(media: list[dict[str, Any]], question: str, answer: str, result: str | None) -> list[dict[str, Any]]:
    """A conversation in which the expert is offered; `result` None means that the question does not need it."""
    user = {"role": "user", "content": [*media, {"type": "text", "text": question}]}
    messages = offer_cards([user], [CARD])
    if result is not None:
        messages += [reply_turn(TRIGGER), result_turn(result, question)]
    return [*messages, reply_turn(answer)]


def random_lookup(rng: random.Random) -> list[dict[str, Any]]:
    """A text-only dialogue: an expert's result, one to three questions on it, answers; for the language model's base.

    In half of them the expert is offered and called first, as in the medical stage; else the first user turn is the
    result turn itself.
    """
    dice = rng.random()
    text, answers, card, trigger = _lesions(rng) if dice < 0.45 else _findings(rng) if dice < 0.9 else _error(rng)
    asked = rng.sample(list(answers), rng.randint(1, len(answers)))
    first = f"{asked[0]}?"
    messages = [result_turn(text, first), reply_turn(answers[asked[0]])]
    if rng.random() < 0.5:
        user = {"role": "user", "content": [{"type": "text", "text": first}]}
        cards = [CARD, FINDINGS] if rng.random() < 0.2 else [card]
        messages = [*offer_cards([user], cards), reply_turn(trigger or f"<{card.name}({asked[0]})>"), *messages]
    for topic in asked[1:]:
        messages += [{"role": "user", "content": [{"type": "text", "text": f"{topic}?"}]}, reply_turn(answers[topic])]
    return messages


Lookup = tuple[str, dict[str, str], ExpertCard, str | None]
"""A result, what it answers by topic, the card of the expert, and its call (None: with the topic as argument)."""


def _lesions(rng: random.Random) -> Lookup:
    number, side, mm = rng.randint(0, 3), rng.choice(("left", "right")), rng.randint(10, 40)
    answers = {"Number": str(number)} | ({"Side": side, "Size": str(mm)} if number else {})
    return findings_text(number, (side, mm) if number else None), answers, CARD, TRIGGER


def _findings(rng: random.Random) -> Lookup:
    """Of one finding, as it is called for, or of all."""
    alone = rng.random() < 0.6
    said = {name: rng.choice(("yes", "no")) for name in ([rng.choice(LABELS)] if alone else LABELS)}
    text = "\n".join(f"{name}: {word}" for name, word in said.items())
    return text, said, FINDINGS, None if alone else f"<{FINDINGS.name}()>"


def _error(rng: random.Random) -> Lookup:
    """An expert that failed says nothing about anything."""
    why = rng.choice(("the header gives no spacing or orientation", "LESIONS is not available", "no more calls"))
    return f"error: {why}", dict.fromkeys(("Number", "Side", "Size"), "unknown"), CARD, TRIGGER


__all__ = ["NEEDS_EXPERT", "QUESTIONS", "TRIGGER", "expert_turns", "findings_text", "random_lookup"]
