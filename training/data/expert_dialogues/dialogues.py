"""The training conversations of one image, in every form; which and how many is decided by seed and image alone.

`expert`, `follow_up`: a call and answers from its result. `no_expert`, `wrong_modality`: cards, and no call.
`fails`, `unavailable`: a call that brings an error, and an honest answer. `contradiction`: a result that the true
answer denies. `vqa`, `report`: the image alone; reports also with a call.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.expert_dialogues.asks import Ask, agree, asks_of
from training.data.expert_dialogues.expert_runs import Found
from training.data.expert_dialogues.labelled_set import LabelledImage, Question
from training.data.expert_dialogues.shares import count_of
from training.data.expert_dialogues.turns import answered_at_once, answered_by_call, asked_further
from training.data.expert_dialogues.wording import Wording
from vlm.experts import ExpertCard, get_expert
from vlm.experts.body_part import card_fits
from vlm.experts.topics import REPORT, REPORT_QUESTIONS, Topic, general_questions, topics_of
from vlm.media.modality import MODALITIES

# What a session says of an expert that is not there, hangs or breaks.
UNAVAILABLE = "error: {name} is not available"
BROKEN = ("error: {name} did not answer within 120 s", "error: {name} failed: RuntimeError")
MAX_FOLLOW_UPS = 3
TRIES, CLEARLY = 50, 3  # another image's number differs by more than thrice the tolerance
PARTS = {"expert": "expert-{name}", "follow_up": "expert-{name}", "vqa": "vqa", "report": "reports"}
NEGATIVES = "negatives"


@dataclass(frozen=True)
class Work:
    """An image after converting and running: its items, modality, body part and results."""

    image: LabelledImage
    digest: str
    items: list[dict[str, Any]]
    modality: str | None
    body_part: str | None
    founds: tuple[Found, ...] = ()


class Dialogues:
    """Makes the conversations of the images of one set.

    works: all images of the split, for results that belong to another image; cards: those of all experts of the run, in
    the order in which a session offers them; patients: the names that groups get.
    """

    def __init__(
        self, works: Sequence[Work], cards: Sequence[ExpertCard], patients: Mapping[str, str], wording: Wording,
        shares: Mapping[str, float], seed: int,
    ) -> None:  # fmt: skip
        self.cards, self.patients, self.wording, self.shares, self.seed = cards, patients, wording, shares, seed
        self.asks = {work.image.number: asks_of(work.image.labels, work.founds) for work in works}
        self.donors: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for asks in self.asks.values():
            for ask in asks:
                if ask.said is not None:
                    self.donors[ask.found.expert, ask.topic.name][ask.said].append(ask.found.text)
        self.topics = {card.name: self._topics(card) for card in cards}

    def of(self, work: Work) -> list[tuple[str, dict[str, Any]]]:
        """(part, record) of every training conversation about one image."""
        rows: list[tuple[str, dict[str, Any]]] = []
        for form in self.shares:
            rng = random.Random(f"{self.seed} {work.image.number} {form}")
            count = count_of(rng, self.shares[form])
            made = getattr(self, f"_{form}")(rng, work, count)
            rows += [
                (PARTS.get(form, NEGATIVES).format(name=fields.pop("name", "")), self.record(work, form, n, **fields))
                for n, fields in enumerate(made)
            ]
        natural = [ask for ask in self.asks[work.image.number] if ask.disagrees]
        rng = random.Random(f"{self.seed} {work.image.number} natural")
        for n, ask in enumerate(picked(rng, natural, count_of(rng, self.shares["expert"]))):
            fields = self._denied(rng, work, ask, ask.found.text)
            rows.append((NEGATIVES, self.record(work, "contradiction", f"own-{n}", **fields, natural=True)))
        return rows

    def fitting(self, work: Work) -> list[ExpertCard]:
        """Cards that a session offers for the image."""
        return [card for card in self.cards if card_fits(card, work.modality, work.body_part)]

    def questions(self, work: Work) -> list[Question]:
        """Questions that need no expert: the set's own, or what kind of image it is."""
        if work.image.qa or work.modality not in MODALITIES:
            return list(work.image.qa)
        rng = random.Random(f"{self.seed} {work.image.number} modality")
        return [Question(rng.choice(self.wording.modality_questions), MODALITIES[work.modality], "modality")]

    def foreign(self, rng: random.Random, work: Work) -> tuple[ExpertCard, str, str] | None:
        """(card of another modality, one of its questions, its topic); None where every expert fits."""
        others = [card for card in self.cards if work.modality not in card.modalities]
        if not others or work.modality not in MODALITIES:
            return None
        card = rng.choice(others)
        name, questions = rng.choice(self.topics[card.name])
        return card, self.wording.question(rng, name, questions), name

    def foreign_words(self, work: Work, card: ExpertCard) -> dict[str, str]:
        """What a sentence on a card of another modality may name."""
        return {"expert": card.name, "reads": card.modality, "image": MODALITIES[work.modality]}

    def record(
        self, work: Work, form: str, n: int | str, messages: list, kind: str, answers: list[str], expert: str | None,
        **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        meta = {"task": "medical", "kind": kind, "form": form, "answers": answers}
        meta |= {"group": self.patients[work.image.patient], "expert": expert, **more}
        return {"id": f"{work.image.number:06d}-{form}-{n}", "source": "", "messages": messages, "meta": meta}

    def _agreeing(self, work: Work) -> list[Ask]:
        return [ask for ask in self.asks[work.image.number] if not ask.disagrees]

    def _expert(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        return [self._called(rng, work, ask) for ask in picked(rng, self._agreeing(work), count)]

    def _called(self, rng: random.Random, work: Work, ask: Ask) -> dict[str, Any]:
        question = self.wording.question(rng, ask.topic.name, ask.topic.questions)
        messages = answered_by_call(
            work.items, self.fitting(work), question, ask.found.trigger, ask.found.text, ask.answer
        )
        return {
            "name": ask.found.expert, "messages": messages, "kind": ask.topic.name, "answers": [ask.answer],
            "expert": wanted(ask.found),
        }  # fmt: skip

    def _follow_up(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        """One call, and two to four questions that its result answers."""
        together: dict[tuple[str, tuple], list[Ask]] = defaultdict(list)
        for ask in self._agreeing(work):
            together[ask.found.expert, ask.found.arguments].append(ask)
        several = [asks for asks in together.values() if len(asks) > 1]
        rows = []
        for _ in range(count if several else 0):
            first, *others = picked(rng, rng.choice(several), 1 + rng.randint(1, MAX_FOLLOW_UPS))
            row = self._called(rng, work, first)
            pairs = [(self.wording.question(rng, ask.topic.name, ask.topic.questions), ask.answer) for ask in others]
            row["messages"] = asked_further(row["messages"], pairs)
            rows.append(row | {"kind": others[-1].topic.name, "answers": [others[-1].answer]})
        return rows

    def _no_expert(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        cards = self.fitting(work)
        return [
            plain_row(answered_at_once(work.items, cards, one.question, one.answer), one.kind, one.answer)
            for one in picked(rng, self.questions(work) if cards else [], count)
        ]

    def _vqa(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        """Without any card: the set's questions, and those of experts that have a true answer."""
        known = [
            Question(self.wording.question(rng, ask.topic.name, ask.topic.questions), ask.truth, ask.topic.name)
            for ask in self.asks[work.image.number]
            if ask.truth is not None
        ]
        return [
            plain_row(answered_at_once(work.items, [], one.question, one.answer), one.kind, one.answer)
            for one in picked(rng, [*self.questions(work), *known], count)
        ]

    def _wrong_modality(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        rows = []
        for _ in range(count):
            if (found := self.foreign(rng, work)) is None:
                break
            card, question, kind = found
            answer = self.wording.answer(rng, "wrong_modality", **self.foreign_words(work, card))
            alone = rng.random() < 0.5  # else among the cards that do fit
            fitting = [] if alone else self.fitting(work)
            offered = [one for one in self.cards if one == card or one in fitting]
            messages = answered_at_once(work.items, offered, question, answer)
            rows.append(plain_row(messages, kind, answer) | {"offer": [card.name]})
        return rows

    def _fails(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        """The errors that there were, at least one an image that has any; else at times one that could have been."""
        failed = [found for found in work.founds if not found.ok]
        if failed and self.shares["fails"]:
            return [self._error(rng, work, "fails", found, found.text) for found in picked(rng, failed, max(1, count))]
        asks = picked(rng, self.asks[work.image.number], count)
        return [self._broken(rng, work, "fails", ask, rng.choice(BROKEN)) for ask in asks]

    def _unavailable(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        asks = picked(rng, self.asks[work.image.number], count)
        return [self._broken(rng, work, "unavailable", ask, UNAVAILABLE) for ask in asks]

    def _broken(self, rng: random.Random, work: Work, form: str, ask: Ask, text: str) -> dict[str, Any]:
        return self._error(rng, work, form, ask.found, text.format(name=ask.found.expert), ask.topic)

    def _error(
        self, rng: random.Random, work: Work, form: str, found: Found, text: str, topic: Topic | None = None
    ) -> dict[str, Any]:
        if topic is None:
            declared = [one for one in get_expert(found.expert).topics if one.arguments == found.arguments]
            named = [(one.name, one.questions) for one in declared]
            name, questions = rng.choice(named or self.topics[found.expert])
        else:
            name, questions = topic.name, topic.questions
        question = self.wording.question(rng, name, questions)
        answer = self.wording.answer(rng, form, expert=found.expert)
        messages = answered_by_call(work.items, self.fitting(work), question, found.trigger, text, answer)
        return plain_row(messages, name, answer) | {"expert": wanted(found)}

    def _contradiction(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        """The result of another image, which does not fit this one's true answer."""
        rows = []
        known = [ask for ask in self._agreeing(work) if ask.truth is not None]
        for ask in picked(rng, known, count):
            by_answer = self.donors[ask.found.expert, ask.topic.name]
            # the answer first, so that rare ones are seen; a few tries are enough where nearly all differ
            said = (rng.choice(list(by_answer)) for _ in range(TRIES if by_answer else 0))
            unlike = next((one for one in said if not agree(ask.truth, one, CLEARLY * ask.topic.tolerance)), None)
            if unlike is not None:
                rows.append(self._denied(rng, work, ask, rng.choice(by_answer[unlike])))
        return rows

    def _denied(self, rng: random.Random, work: Work, ask: Ask, text: str) -> dict[str, Any]:
        question = self.wording.question(rng, ask.topic.name, ask.topic.questions)
        answer = self.wording.answer(rng, "contradiction", expert=ask.found.expert, answer=ask.truth)
        messages = answered_by_call(work.items, self.fitting(work), question, ask.found.trigger, text, answer)
        return plain_row(messages, ask.topic.name, answer) | {"expert": wanted(ask.found)}

    def _report(self, rng: random.Random, work: Work, count: int) -> list[dict[str, Any]]:
        """Plain, and once more with each expert that says what a report may use."""
        report = work.image.report
        if not report or not count:
            return []
        rows = [plain_row(answered_at_once(work.items, [], self._report_question(rng), report), REPORT, report)]
        for found in (one for one in work.founds if one.ok and reports(one)):
            messages = answered_by_call(
                work.items, self.fitting(work), self._report_question(rng), found.trigger, found.text, report
            )
            rows.append(plain_row(messages, REPORT, report) | {"expert": wanted(found)})
        return rows

    def _report_question(self, rng: random.Random) -> str:
        return self.wording.question(rng, REPORT, REPORT_QUESTIONS)

    def known_topics(self) -> list[str]:
        """Names of all topics that a label can answer: those that experts declare, and those seen in results."""
        seen = {ask.topic.name for asks in self.asks.values() for ask in asks}
        declared = {topic.name for card in self.cards for topic in get_expert(card.name).topics}
        return sorted((seen | declared) - {REPORT})

    def _topics(self, card: ExpertCard) -> list[tuple[str, tuple[str, ...]]]:
        """(topic, questions) that an expert can be asked: as declared, as seen in its results, as its card promises."""
        declared = [(topic.name, topic.questions) for topic in get_expert(card.name).topics if topic.name != REPORT]
        seen = {
            ask.topic.name: ask.topic.questions
            for asks in self.asks.values()
            for ask in asks
            if ask.found.expert == card.name
        }
        return declared or list(seen.items()) or [(card.returns, general_questions(card))]


def picked(rng: random.Random, choices: Sequence[Any], count: int) -> list[Any]:
    """`count` different ones, or all where there are fewer, in random order."""
    return rng.sample(list(choices), min(count, len(choices)))


def plain_row(messages: list, kind: str, answer: str) -> dict[str, Any]:
    """The fields of a record without an expert."""
    return {"messages": messages, "kind": kind, "answers": [answer], "expert": None}


def wanted(found: Found) -> str:
    """The call that is right, as `meta.expert` names it: a bare name for an expert that takes no arguments."""
    return found.trigger if get_expert(found.expert).card.arguments else found.expert


def reports(found: Found) -> bool:
    """Whether a result is the one that reports are written from."""
    topics = topics_of(get_expert(found.expert))
    return any(topic.name == REPORT and topic.arguments == found.arguments for topic in topics)
