"""Macro and micro F1 against a plain count over samples, for lists of labels and for yes/no questions."""

import random

import pytest

from eval.aggregates import InvalidRate, LabelF1
from eval.metrics.label_f1 import read_labels

LABELS = ["Edema", "Effusion", "Mass"]


def listed(output, answers, **more):
    return {"id": "1", "output": output, "answers": answers, "scoring": {"labels": LABELS}, **more}


def asked(kind, output, gold):
    return {"id": "1", "kind": kind, "output": output, "answers": [gold]}


def plain_f1(pairs, label):
    tp = sum(label in p and label in g for p, g in pairs)
    fp = sum(label in p and label not in g for p, g in pairs)
    fn = sum(label not in p and label in g for p, g in pairs)
    return 2 * tp / (2 * tp + fp + fn), (tp, fp, fn)


def test_agrees_with_counting_by_hand():
    rng = random.Random(0)
    rows = [
        listed(", ".join(rng.sample(LABELS, rng.randrange(4))) or "none", rng.sample(LABELS, rng.randrange(1, 4)))
        for _ in range(50)
    ]
    rows += [listed("I cannot tell", ["Edema"]), listed("Edema", ["Edema"], error="out of memory")]
    pairs = []
    for row in rows:
        read = None if row.get("error") else read_labels(row["output"], LABELS)
        pairs.append((read or frozenset(), {label.lower() for label in row["answers"]}))
    scores, counts = zip(*(plain_f1(pairs, label.lower()) for label in LABELS))
    tp, fp, fn = (sum(column) for column in zip(*counts))
    assert LabelF1("macro").value(rows) == pytest.approx(sum(scores) / 3, abs=1e-12)
    assert LabelF1("micro").value(rows) == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    assert InvalidRate().value(rows) == pytest.approx(2 / 52)


def test_macro_and_micro_as_in_the_field():
    rows = [listed("Edema", ["Edema"])] * 8 + [listed("Edema", ["Effusion"])] * 2 + [listed("Mass", ["Edema"])]
    rows += [listed("none", ["Edema"]), listed("none", ["Effusion"])]
    assert LabelF1("macro").value(rows) == pytest.approx((0.8 + 0 + 0) / 3)
    assert LabelF1("micro").value(rows) == pytest.approx(2 * 8 / (2 * 8 + 3 + 5))


def test_yes_no_questions():
    rows = [
        asked("edema", "Yes, there is.", "Yes"),
        asked("edema", "no", "No"),
        asked("mass", "Yes", "no"),
        asked("mass", "no", "yes"),
        asked("mass", "I cannot tell", "yes"),  # not a "no" that nobody said
    ]
    assert LabelF1("macro", by="kind").value(rows) == pytest.approx(0.5)
    assert LabelF1("micro", by="kind").value(rows) == pytest.approx(2 / (2 + 1 + 2))
    assert InvalidRate(by="kind").value(rows) == pytest.approx(1 / 5)


def test_a_label_that_never_occurs_has_no_f1():
    assert LabelF1("macro").value([listed("Edema", ["Edema"])]) == 1.0
    assert LabelF1("macro", labels=LABELS).value([listed("none", ["none"])]) is None
    assert LabelF1("macro").value([]) is LabelF1("micro").value([{"id": "1", "output": "x", "answers": []}]) is None


def test_labels_are_found_in_the_gold_answers():
    rows = [{"id": "1", "output": "Edema, Typo", "answers": ["Edema"]}]
    assert LabelF1("macro").value(rows) == 1.0
    assert LabelF1("micro").value(rows) == pytest.approx(2 / 3)


def test_illegal_average():
    with pytest.raises(ValueError, match="average must be 'macro' or 'micro'"):
        LabelF1("weighted")
