"""What experts can be asked: as declared, and as results of the usual shapes show where nothing is declared."""

import numpy as np
import pytest

from vlm.experts import Expert, ExpertCard, ExpertResult, expert_names, get_expert
from vlm.experts.protocol import check_arguments
from vlm.experts.topics import REPORT, calls_of, derived_topics, general_questions, topics_of


class Plain(Expert):
    """Declares nothing."""

    card = ExpertCard("PLAIN", "CT", "any", "organs", ("hepatic tumor", "organs"))

    def run(self, path, arguments):
        return ExpertResult("")


def answers(result, arguments=()):
    return {topic.name: topic.answer(result) for topic in derived_topics(result, arguments)}


@pytest.mark.parametrize("name", expert_names())
def test_declared_topics_are_asked_in_words_and_with_arguments_of_the_card(name):
    expert = get_expert(name)
    assert len({topic.name for topic in expert.topics}) == len(expert.topics)
    for topic in expert.topics:
        check_arguments(expert.card, topic.arguments)
        assert topic.questions and all(question.strip() for question in topic.questions)
    for arguments in calls_of(expert):
        check_arguments(expert.card, arguments)


def test_lesions_number_side_and_size():
    lesions = [{"mm": 14.4, "side": "left"}, {"mm": 9.0, "side": "right"}]
    topics = {topic.name: topic for topic in topics_of(get_expert("LESIONS"))}
    found = ExpertResult("2 lesions", None, {"lesions": lesions})
    nothing = ExpertResult("0 lesions", None, {"lesions": []})
    assert {name: topic.answer(found) for name, topic in topics.items()} == {
        "number": "2",
        "side": "left",
        "size": "14",
    }
    assert {name: topic.answer(nothing) for name, topic in topics.items()} == {
        "number": "0",
        "side": None,
        "size": None,
    }


def test_findings_are_asked_one_by_one_and_a_report_by_all():
    topics = {topic.name: topic for topic in topics_of(get_expert("FINDINGS"))}
    assert list(topics) == ["cardiomegaly", "effusion", "nodule", REPORT]
    assert topics["effusion"].arguments == ("effusion",) and topics[REPORT].arguments == ()
    result = ExpertResult("", None, {"probabilities": {"effusion": 0.51}})
    assert topics["effusion"].answer(result) == "yes" and topics["nodule"].answer(result) is None
    assert topics["effusion"].answer(ExpertResult("", None, {"probabilities": {"effusion": 0.5}})) == "no"
    assert calls_of(get_expert("FINDINGS")) == (("cardiomegaly",), ("effusion",), ("nodule",), ())


def test_a_segmentation_of_organs_gives_presence_side_volume_and_number():
    regions = [
        {"label": 26, "name": "hepatic tumor", "ml": 12.14, "parts": 2, "side": "right"},
        {"label": 1, "name": "liver", "ml": 1402.3, "parts": 1, "side": "right"},
    ]
    labels = {1: "liver", 26: "hepatic tumor", 3: "spleen"}
    result = ExpertResult(
        "x", np.zeros((1, 2, 2), int), {"regions": regions, "labels": labels, "absent": ["lung tumor"]}
    )
    assert answers(result) == {
        "hepatic tumor": "yes", "hepatic tumor side": "right", "hepatic tumor volume": "12.1",
        "hepatic tumor number": "2", "liver": "yes", "liver side": "right", "liver volume": "1402.3",
        "liver number": "1", "lung tumor": "no",
    }  # fmt: skip
    assert {topic.arguments for topic in derived_topics(result, ("hepatic tumor",))} == {("hepatic tumor",)}


def test_a_tumor_that_is_not_there_is_said_to_be_absent():
    labels = {1: "necrotic core", 2: "edema"}
    assert answers(ExpertResult("no tumor found", None, {"regions": [], "labels": labels})) == {
        "necrotic core": "no",
        "edema": "no",
    }
    one = {"name": "whole tumor", "ml": 3.0, "parts": 1, "side": "left"}
    found = answers(ExpertResult("x", None, {"regions": [one], "labels": labels}))
    assert "edema" not in found and found["whole tumor"] == "yes"  # a region of another name denies no label


def test_a_classifier_gives_yes_and_no_and_odd_findings_give_nothing():
    assert answers(ExpertResult("", None, {"probabilities": {"edema": 0.7, "hernia": 0.1}})) == {
        "edema": "yes", "hernia": "no",
    }  # fmt: skip
    for findings in ({}, {"regions": "liver"}, {"regions": [3, {"ml": 2}]}, {"probabilities": [0.2]}, {"labels": [1]}):
        assert answers(ExpertResult("", None, findings)) == {}


def test_an_expert_without_topics_is_called_for_what_is_known_of_the_image():
    assert calls_of(Plain, ("hepatic tumor", "weather")) == ((), ("hepatic tumor",))
    assert [topic.name for topic in topics_of(Plain)] == [REPORT]
    assert any("hepatic tumor" in question for question in general_questions(Plain.card))
    assert "organs" in general_questions(ExpertCard("P", "CT", "any", "organs"))[0]
