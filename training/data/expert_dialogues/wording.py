"""Every sentence of the conversations but an expert's own questions; a YAML file replaces any of them, those too.

    questions:                        # by topic; replace the expert's own
      number: ["Number?"]
      effusion: ["Effusion?"]
    modality_questions: ["Modality?"]
    answers:                          # {expert}, {reads}, {image} and {answer} stand for words of the conversation
      wrong_modality: ["not {reads}"]
      fails: ["unknown"]
      unavailable: ["unknown"]
      contradiction: ["disagree"]

A list is a choice of paraphrases. Answers (`2`, `left`, `yes`) are never worded: they are what is measured.
"""

import random
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm.errors import RadioVLMError

PLACES = {
    "wrong_modality": ("expert", "reads", "image"),
    "fails": ("expert",),
    "unavailable": ("expert",),
    "contradiction": ("expert", "answer"),
}
ANSWERS = {
    "wrong_modality": (
        "I cannot use {expert} here: it reads {reads}, and this image is {image}.",
        "This image is {image}; {expert} reads {reads}, so it cannot answer this.",
    ),
    "fails": (
        "{expert} could not read this image, so I cannot say.",
        "I do not know: {expert} gave no result for this image.",
    ),
    "unavailable": (
        "{expert} is not available here, so I cannot say.",
        "I do not know: {expert} cannot be used here.",
    ),
    "contradiction": (
        "The result of {expert} and the image disagree. The image shows: {answer}.",
        "The result of {expert} does not match this image. From the image: {answer}.",
    ),
}
MODALITY_QUESTIONS = ("Which kind of image is this?", "Which imaging modality is this?")


@dataclass(frozen=True)
class Wording:
    """`questions`: topic -> paraphrases, where they replace the expert's own; the rest as in the file."""

    questions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    modality_questions: tuple[str, ...] = MODALITY_QUESTIONS
    answers: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(ANSWERS))

    def question(self, rng: random.Random, topic: str, own: tuple[str, ...]) -> str:
        """A question on a topic; `own` are the expert's."""
        return rng.choice(self.questions.get(topic, own))

    def answer(self, rng: random.Random, form: str, **words: str) -> str:
        """The fixed sentence that a form ends in."""
        return rng.choice(self.answers[form]).format(**{name: words[name] for name in PLACES[form]})

    def disagreement(self) -> list[str]:
        """Words that say in an answer that result and image disagree, for the evaluation."""
        return [longest_literal(sentence).lower() for sentence in self.answers["contradiction"]]

    def all_answers(self, form: str, **words: str) -> list[str]:
        """All paraphrases of that sentence, where any of them is right."""
        return [one.format(**{name: words[name] for name in PLACES[form]}) for one in self.answers[form]]


def longest_literal(sentence: str) -> str:
    """The longest stretch of a sentence that is the same whatever it is filled with."""
    return max((text.strip() for text, *_ in string.Formatter().parse(sentence)), key=len)


def read_wording(file: str | Path | None) -> Wording:
    """The default wording, with what the YAML file says in its place. Raises `RadioVLMError` naming file and key."""
    if file is None:
        return Wording()
    import yaml

    try:
        said = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RadioVLMError(f"--wording {file}: cannot be read: {error}") from None
    known = ("questions", "modality_questions", "answers")
    if not isinstance(said, dict) or (unknown := [key for key in said if key not in known]):
        problem = f"unknown key {unknown[0]!r}" if isinstance(said, dict) else "it is no mapping"
        raise RadioVLMError(f"--wording {file}: {problem}; known: {', '.join(known)}")
    questions, answers = _mapping(file, said, "questions"), _mapping(file, said, "answers")
    for form in answers:
        if form not in PLACES:
            raise RadioVLMError(f"--wording {file}: answers: unknown form {form!r}; known: {', '.join(PLACES)}")
    for one in _texts(file, "answers.contradiction", answers.get("contradiction", ["x"]), PLACES["contradiction"]):
        if not any(map(str.isalpha, longest_literal(one))):
            raise RadioVLMError(
                f"--wording {file}: answers.contradiction: {one!r:.60} has no words of its own, by which the "
                "evaluation could tell that an answer says that image and result disagree"
            )
    worded = {form: _texts(file, f"answers.{form}", value, PLACES[form]) for form, value in answers.items()}
    modality = said.get("modality_questions")
    return Wording(
        {str(topic): _texts(file, f"questions.{topic}", value) for topic, value in questions.items()},
        MODALITY_QUESTIONS if modality is None else _texts(file, "modality_questions", modality),
        ANSWERS | worded,
    )


def _mapping(file: Any, said: dict, key: str) -> dict:
    value = said.get(key) or {}
    if not isinstance(value, dict):
        raise RadioVLMError(f"--wording {file}: {key} must be a mapping")
    return value


def _texts(file: Any, key: str, value: Any, places: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """One text or a list of them; with `places` the names that may stand in braces."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise RadioVLMError(f"--wording {file}: {key} must be text or a list of texts, not {value!r:.60}")
    for one in texts if places is not None else ():
        try:
            used = [name for _, name, _, _ in string.Formatter().parse(one) if name is not None]
        except ValueError as error:
            raise RadioVLMError(f"--wording {file}: {key}: {one!r:.60}: {error}") from None
        if unknown := [name for name in used if name not in places]:
            known = ", ".join(f"{{{name}}}" for name in places)
            raise RadioVLMError(f"--wording {file}: {key}: {{{unknown[0]}}} is not known here; known: {known}")
    return tuple(texts)
