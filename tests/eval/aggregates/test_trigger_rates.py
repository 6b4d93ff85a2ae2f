"""Rates of expert calls, from the first reply of a conversation or from a lone reply."""

import pytest

from eval.aggregates import ArgumentAccuracy, FalseTriggerRate, TriggerPrecision, TriggerRecall
from eval.aggregates.trigger_rates import first_reply
from eval.metrics.expert_trigger import called_expert


def row(reply, wanted, **more):
    return {"id": "1", "output": reply, "wanted_expert": wanted, **more}


ROWS = [
    row("<CXR(edema)>", "<CXR(edema)>"),
    row("<CXR(mass)>", "<CXR(edema)>"),
    row("<CXR()>", None),
    row("left", "CXR"),
    row("left", None),
    row("<CXR(", "CXR"),
    row("<CT()>", "CXR"),
]


def test_rates():
    assert TriggerPrecision().value(ROWS) == pytest.approx(2 / 5)
    assert TriggerRecall().value(ROWS) == pytest.approx(2 / 5)
    assert FalseTriggerRate().value(ROWS) == pytest.approx(1 / 2)
    assert ArgumentAccuracy().value(ROWS) == pytest.approx(1 / 2)


def test_same_as_precision_and_recall_of_decisions():
    names = [(r["wanted_expert"] or "").strip("<>").split("(")[0] or None for r in ROWS]
    decisions = [(called_expert(r["output"]), name) for r, name in zip(ROWS, names)]
    right = sum(called is not None and called == wanted for called, wanted in decisions)
    calls, wants = (sum(name is not None for name in column) for column in zip(*decisions))
    assert TriggerPrecision().value(ROWS) == pytest.approx(right / calls)
    assert TriggerRecall().value(ROWS) == pytest.approx(right / wants)
    assert TriggerPrecision().value(ROWS[:1]) == TriggerRecall().value([*ROWS[:1], row("left", None)]) == 1.0


def test_the_first_turn_decides():
    turns = [
        {"role": "user", "text": "<CT()>?"},
        {"role": "assistant", "text": "<CXR()>"},
        {"role": "user", "text": "edema"},
        {"role": "assistant", "text": "Yes"},
    ]
    conversation = row("Yes", "CXR", turns=turns)
    assert first_reply(conversation) == "<CXR()>"
    assert TriggerRecall().value([conversation]) == ArgumentAccuracy().value([conversation]) == 1.0


def test_what_is_not_defined():
    assert TriggerPrecision().value([row("left", "CXR")]) == TriggerRecall().value([row("left", None)]) == 0.0
    assert FalseTriggerRate().value([row("left", "CXR")]) is None
    assert ArgumentAccuracy().value([row("left", "CXR"), row("left", None)]) is None
    assert TriggerPrecision().value([{"id": "1", "output": "left"}]) is None  # a task without experts
    assert TriggerRecall().value([row("<CXR()>", "CXR", error="out of memory")]) == 0.0
