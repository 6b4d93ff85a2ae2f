"""What an expert can be asked: the questions that its result answers, for making training conversations.

An expert declares its own in its own file (`Expert.topics`). For one that declares none they follow from what a result
holds under the usual names: `probabilities` gives yes/no questions, `regions`, `absent` and `labels` give "is it
there", side, volume and number of parts. So a new expert can be trained for without a word about questions.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vlm.experts.protocol import Expert, ExpertCard, ExpertResult

REPORT = "report"
THRESHOLD = 0.5  # as `yes_no_text` has it


@dataclass(frozen=True)
class Topic:
    """One thing to ask.

    name: also the key under which a labelled image holds the true answer.
    questions: ways of asking it, one of which is chosen.
    answer: the answer in a result, None where this result does not have it.
    arguments: with which the expert is called for it.
    tolerance: for numbers, how far a result may be from the truth and still agree.
    """

    name: str
    questions: tuple[str, ...]
    answer: Callable[[ExpertResult], str | None]
    arguments: tuple[str, ...] = ()
    tolerance: float = 0.0


def yes_no(value: bool) -> str:
    """`yes` or `no`."""
    return "yes" if value else "no"


def finding_topic(name: str, arguments: tuple[str, ...] = ()) -> Topic:
    """Whether a finding is there, by its probability in `findings["probabilities"]`."""

    def answer(result: ExpertResult) -> str | None:
        value = (result.findings.get("probabilities") or {}).get(name)
        return None if value is None else yes_no(value > THRESHOLD)

    return Topic(name, presence_questions(name), answer, arguments)


def report_topic(arguments: tuple[str, ...] = ()) -> Topic:
    """A report on the whole image. No result is a report: only a labelled image's own report answers it."""
    return Topic(REPORT, REPORT_QUESTIONS, lambda result: None, arguments)


REPORT_QUESTIONS = (
    "Write a report on this image.",
    "Describe the image in detail.",
    "What are the findings in this image?",
)


def presence_questions(name: str) -> tuple[str, ...]:
    """Ways to ask whether something is there."""
    return (f"Is there {name} in this image?", f"Does the image show {name}?", f"Can you see {name}?")


def topics_of(
    expert: type[Expert], result: ExpertResult | None = None, arguments: tuple[str, ...] = ()
) -> tuple[Topic, ...]:
    """What the expert can be asked, report included: as declared, or as `result`, got with `arguments`, shows."""
    if expert.topics:
        return expert.topics
    derived = () if result is None else derived_topics(result, arguments)
    return (*derived, report_topic(()))


def calls_of(expert: type[Expert], labels: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """The arguments of the calls that its topics need, each once.

    Without declared topics: one call without arguments, and one for each argument that is the name of a true answer
    (`labels`) of the image.
    """
    if expert.topics:
        return tuple(dict.fromkeys(topic.arguments for topic in expert.topics))
    return ((), *((name,) for name in labels if name in expert.card.arguments))


def general_questions(card: ExpertCard) -> tuple[str, ...]:
    """Ways to ask for what a card promises, where nothing better is known."""
    if card.arguments:
        return tuple(question for argument in card.arguments for question in presence_questions(argument))
    return (f"What does the image show: {card.returns}?",)


def derived_topics(result: ExpertResult, arguments: tuple[str, ...] = ()) -> tuple[Topic, ...]:
    """Topics of a result by the usual names of its findings."""
    found: dict[str, Topic] = {}
    for topic in (*_of_probabilities(result, arguments), *_of_regions(result, arguments)):
        found.setdefault(topic.name, topic)
    return tuple(found.values())


def _of_probabilities(result: ExpertResult, arguments: tuple[str, ...]) -> list[Topic]:
    probabilities = result.findings.get("probabilities")
    return [finding_topic(str(name), arguments) for name in probabilities] if isinstance(probabilities, dict) else []


def _of_regions(result: ExpertResult, arguments: tuple[str, ...]) -> list[Topic]:
    regions = result.findings.get("regions")
    if not isinstance(regions, list):
        return []
    topics = []
    for region in regions:
        if not isinstance(region, dict) or not isinstance(region.get("name"), str):
            continue
        name = region["name"]
        topics.append(_region(name, name, presence_questions(name), arguments, lambda one: yes_no(one is not None)))
        if "side" in region:
            asked = (f"On which side is the {name}?", f"Where is the {name}: left, right or both sides?")
            topics.append(_region(f"{name} side", name, asked, arguments, lambda one: one and one.get("side")))
        if "ml" in region:
            asked = (f"What is the volume of the {name}, in ml?", f"How large is the {name}, in ml?")
            topics.append(_region(f"{name} volume", name, asked, arguments, lambda one: one and f"{one['ml']:.1f}"))
        if "parts" in region:
            asked = (f"How many separate parts of {name} are there?", f"In how many parts is the {name}?")
            topics.append(_region(f"{name} number", name, asked, arguments, lambda one: one and str(one["parts"])))
    # what was looked for and is not there
    for name in _absent(
        result, {region["name"] for region in regions if isinstance(region, dict) and "name" in region}
    ):
        topics.append(_region(name, name, presence_questions(name), arguments, lambda one: yes_no(one is not None)))
    return topics


def _absent(result: ExpertResult, present: set[str]) -> list[str]:
    """Names that were looked for in vain. Without a list of them: the mask's labels, where nothing at all was found."""
    absent = result.findings.get("absent")
    if isinstance(absent, list):
        return [name for name in absent if isinstance(name, str)]
    labels = result.findings.get("labels")
    return (
        [name for name in labels.values() if isinstance(name, str)] if isinstance(labels, dict) and not present else []
    )


def _region(
    topic: str,
    name: str,
    questions: tuple[str, ...],
    arguments: tuple[str, ...],
    said: Callable[[dict | None], str | None],
) -> Topic:
    def answer(result: ExpertResult) -> str | None:
        regions = result.findings.get("regions")
        if not isinstance(regions, list):
            return None
        region = next((one for one in regions if isinstance(one, dict) and one.get("name") == name), None)
        return said(region) or None

    return Topic(topic, questions, answer, arguments)
