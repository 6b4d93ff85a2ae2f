"""Calibration figures against plain implementations over the rows themselves, and where they are not defined."""

import random

import pytest

from eval.aggregates import calibration
from eval.aggregates.calibration import AdaptiveCalibrationError, Auroc, Brier, ExpectedCalibrationError, reliability
from eval.bootstrap import interval


def rows_of(n, seed=0, digits=None, wrong=0.3):
    rng = random.Random(seed)
    rows = []
    for number in range(n):
        gold = rng.random() < 0.4
        p = rng.betavariate(2, 1) if gold != (rng.random() < wrong) else rng.betavariate(1, 2)
        p = p if digits is None else round(p, digits)
        rows.append({"id": str(number), "p_yes": p, "yes_no_mass": 0.5, "gold_yes": gold})
    return rows


def plain_auroc(rows):
    yes, no = ([r["p_yes"] for r in rows if r["gold_yes"] == gold] for gold in (True, False))
    return sum((a > b) + (a == b) / 2 for a in yes for b in no) / (len(yes) * len(no))


def plain_ece(rows, bins):
    """`bins`: lists of rows."""
    gaps = [
        abs(sum(r["p_yes"] for r in b) / len(b) - sum(r["gold_yes"] for r in b) / len(b)) * len(b) for b in bins if b
    ]
    return sum(gaps) / len(rows)


@pytest.mark.parametrize("digits", [None, 1])  # one digit: many ties
def test_auroc_is_the_share_of_pairs(digits):
    rows = rows_of(300, digits=digits)
    assert Auroc().value(rows) == pytest.approx(plain_auroc(rows))


def test_auroc_of_more_values_than_cells_is_near():
    rows = rows_of(1500, seed=1)
    assert Auroc().value(rows) == pytest.approx(plain_auroc(rows), abs=1 / 512)
    assert Auroc(cells=8).value(rows) != pytest.approx(plain_auroc(rows), abs=1e-6)  # the bound is about something


def test_auroc_of_a_perfect_and_a_wrong_order():
    rows = [{"p_yes": p, "gold_yes": p > 0.5} for p in (0.1, 0.2, 0.7, 0.9)]
    assert Auroc().value(rows) == 1.0
    assert Auroc().value([{**row, "gold_yes": not row["gold_yes"]} for row in rows]) == 0.0
    assert Auroc().value(rows[:2]) is None  # no yes question


def test_ece_of_equal_width():
    rows = rows_of(400)
    bins = [[r for r in rows if k / 10 <= r["p_yes"] < (k + 1) / 10] for k in range(10)]
    assert ExpectedCalibrationError().value(rows) == pytest.approx(plain_ece(rows, bins))
    edge = [{"p_yes": 1.0, "gold_yes": True}, {"p_yes": 0.0, "gold_yes": True}]
    assert ExpectedCalibrationError().value(edge) == 0.5


def test_ece_of_equally_many():
    rows = rows_of(400)
    ordered = sorted(rows, key=lambda r: r["p_yes"])
    bins = [ordered[start : start + 40] for start in range(0, 400, 40)]
    assert AdaptiveCalibrationError().value(rows) == pytest.approx(plain_ece(rows, bins))
    same = [{"p_yes": 0.5, "gold_yes": gold} for gold in (True, True, True, False)]
    assert AdaptiveCalibrationError().value(same) == 0.25


def test_brier():
    rows = rows_of(50)
    assert Brier().value(rows) == pytest.approx(sum((r["p_yes"] - r["gold_yes"]) ** 2 for r in rows) / 50)


@pytest.mark.parametrize("figure", calibration.FIGURES)
def test_rows_that_were_not_weighed_do_not_count_and_an_interval_holds_the_figure(figure):
    rows = rows_of(200)
    aggregate, plain = figure(), {"id": "x", "scores": {}}
    estimate = interval(aggregate, [*rows, plain])
    assert estimate.n == 200 and estimate.value == pytest.approx(aggregate.value(rows))
    assert estimate.low < estimate.value < estimate.high
    assert aggregate.value([plain]) is None


def test_reliability_bins():
    found = reliability([*rows_of(100), {"id": "not weighed"}])
    assert found["n"] == sum(one["count"] for one in found["bins"]) == 100 and found["mass"] == 0.5
    assert [one["low"] for one in found["bins"]][:3] == [0.0, 0.1, 0.2] and found["bins"][-1]["high"] == 1.0
    gap = sum(abs(b["mean_p"] - b["share_yes"]) * b["count"] for b in found["bins"] if b["count"]) / 100
    assert gap == pytest.approx(ExpectedCalibrationError().value(rows_of(100)), abs=1e-3)
    assert reliability([])["bins"][0] == {"low": 0.0, "high": 0.1, "count": 0, "mean_p": None, "share_yes": None}
