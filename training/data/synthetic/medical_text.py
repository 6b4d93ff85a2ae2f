"""The words of the medical conversations, without the pictures: questions, the expert's result, whole dialogues.

The corpus (`medical.py`) and the text on which the small language model is trained first use the same functions, so
that looking an answer up in an expert's result is nothing new to the model when the pictures come.
"""

import random
from typing import Any

from vlm.experts.ct_lesions import CARD, findings_text
from vlm.experts.session import offer_cards, reply_turn, result_turn

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


def expert_turns(media: list[dict[str, Any]], question: str, answer: str, result: str | None) -> list[dict[str, Any]]:
    """A conversation in which the expert is offered; `result` None means that the question does not need it."""
    user = {"role": "user", "content": [*media, {"type": "text", "text": question}]}
    messages = offer_cards([user], [CARD])
    if result is not None:
        messages += [reply_turn(TRIGGER), result_turn(result, question)]
    return [*messages, reply_turn(answer)]


def random_lookup(rng: random.Random) -> list[dict[str, Any]]:
    """A text-only dialogue: an expert's result, one to three questions on it, answers; for the language model's base.

    The first user turn is the result turn itself, so that the look-up is learned without card and picture.
    """
    number, side, mm = rng.randint(0, 3), rng.choice(("left", "right")), rng.randint(10, 40)
    text = findings_text(number, (side, mm) if number else None)
    answers = {"number": str(number)} | ({"side": side, "size": str(mm)} if number else {})
    kinds = rng.sample(list(answers), rng.randint(1, len(answers)))
    messages = [result_turn(text, QUESTIONS[kinds[0]]), reply_turn(answers[kinds[0]])]
    for kind in kinds[1:]:
        question = {"role": "user", "content": [{"type": "text", "text": QUESTIONS[kind]}]}
        messages += [question, reply_turn(answers[kind])]
    return messages


__all__ = ["NEEDS_EXPERT", "QUESTIONS", "TRIGGER", "expert_turns", "findings_text", "random_lookup"]
