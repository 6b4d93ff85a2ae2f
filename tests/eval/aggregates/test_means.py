"""Mean, macro mean, the F1 of answerable questions, and what all aggregates share."""

import numpy as np
import pytest

from eval.aggregates import AnswerableF1, MacroMean, Mean, aggregates, get_aggregate
from eval.bootstrap import interval
from eval.metrics.mmlongbench_doc import is_answerable
from eval.registry import UnknownNameError
from tests.helpers.slow_answerable_f1 import generalised_f1


def row(score, kind="a", **more):
    return {"id": "1", "kind": kind, "scores": {"m": score}, **more}


def test_registry():
    assert get_aggregate("mean") is Mean
    assert {"macro_mean", "answerable_f1", "corpus_bleu", "label_f1", "invalid_rate"} <= set(aggregates)
    with pytest.raises(UnknownNameError, match="unknown aggregate 'median' .*known: .*mean"):
        get_aggregate("median")


def test_mean_leaves_out_what_was_not_scored():
    assert Mean("m").value([row(1.0), row(0.0), row(None)]) == 0.5
    assert Mean("m").value([row(None)]) is Mean("m").value([]) is None
    with pytest.raises(KeyError, match="sample '1' has no score 'anls'; it has: m"):
        Mean("anls").value([row(1.0)])


def test_macro_mean_weighs_kinds_alike():
    rows = [row(1.0)] * 8 + [row(0.0, "b")] * 2 + [row(None, "c")]
    assert Mean("m").value(rows) == 0.8
    assert MacroMean("m").value(rows) == 0.5
    assert MacroMean("m", by="modality").value([row(1.0, modality=m) for m in ("CT", None)]) == 1.0
    assert MacroMean("m", classes=["b"]).value(rows) == 0.0


def test_macro_mean_over_resamples_that_miss_a_kind():
    aggregate = MacroMean("m").prepared([row(1.0), row(0.0, "b")])
    sums = np.stack([aggregate.statistics(row(1.0)), aggregate.statistics(row(0.0, "b"))])
    assert aggregate.combine(np.array([[1, 1], [2, 0], [0, 2]]) @ sums).tolist() == [0.5, 1.0, 0.0]
    assert np.isnan(aggregate.combine(np.zeros(4)))
    with pytest.raises(ValueError, match="call prepared"):
        MacroMean("m").statistics(row(1.0))


def test_answerable_f1_as_lmms_eval_computes_it():
    def asked(score, gold, reply, error=None):
        return row(score, answers=[gold], output=reply, error=error)

    rows = [
        asked(1.0, "12", "12"),
        asked(0.5, "left", "loft"),
        asked(0.0, "7", "Not answerable"),
        asked(1.0, "Not answerable", "not answerable"),
        asked(0.0, "Not answerable", "3"),
        asked(0.0, "5", "not answerable", error="out of memory"),  # failed: an answer, and a wrong one
    ]
    recall, precision = 1.5 / 4, 1.5 / 4
    assert AnswerableF1("m").value(rows) == pytest.approx(2 * recall * precision / (recall + precision))
    sides = [(is_answerable(r["answers"][0]), bool(r["error"]) or is_answerable(r["output"])) for r in rows]
    slow = generalised_f1((r["scores"]["m"], *side) for r, side in zip(rows, sides))
    assert AnswerableF1("m").value(rows) == pytest.approx(slow, abs=1e-12)
    assert AnswerableF1("m").value(rows[:2]) == pytest.approx(0.75)
    assert AnswerableF1("m").value(rows[3:4]) == 0.0
    assert interval(AnswerableF1("m"), rows * 3).n == 18
