"""Intervals: their slow twin that resamples rows literally, their coverage, and what must not change them."""

import math
import random

import numpy as np
import pytest

from eval import bootstrap
from eval.aggregates import AnswerableF1, CorpusBleu, LabelF1, MacroMean, Mean, TriggerPrecision, TriggerRecall
from eval.aggregates.trigger_rates import FalseTriggerRate
from eval.bootstrap import Estimate, draw_weights, interval, paired_interval

WORDS = "no acute effusion or edema in the left lung base".split()


def make_rows(n=60, seed=0, better=0.0):
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        reference = " ".join(rng.choices(WORDS, k=8))
        rows.append(
            {
                "id": f"s{i}",
                "task": "t",
                "kind": rng.choice("abc"),
                "group": f"image{rng.randrange(n // 4)}" if rng.random() < 0.8 else None,
                "control": None,
                "output": " ".join(word if rng.random() < 0.8 + better else "x" for word in reference.split()),
                "answers": [reference],
                "scores": {"m": None if rng.random() < 0.1 else rng.random() + better},
                "error": None,
            }
        )
    return rows


AGGREGATES = [
    Mean("m"),
    MacroMean("m"),
    AnswerableF1("m"),
    CorpusBleu(),
    CorpusBleu(2, package="pycocoevalcap"),
    LabelF1("micro"),
    LabelF1("macro"),
]


def clusters_of(rows):
    """Lists of rows, in the order in which clusters are numbered."""
    groups = {}
    for row in rows:
        key = ("t", "group", row["group"]) if row["group"] else ("t", "sample", row["id"], str(row["control"]))
        groups.setdefault(key, []).append(row)
    return [groups[key] for key in sorted(groups)]


def literal_draws(count, resamples, seed):
    generator = np.random.default_rng(seed)
    return [generator.integers(count, size=count) for _ in range(resamples)]


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda a: a.name)
def test_agrees_with_literal_resampling_of_rows(aggregate):
    rows = make_rows()
    prepared = aggregate.prepared(rows)
    clusters = clusters_of([row for row in rows if prepared.statistics(row) is not None])
    figures = [
        prepared.value([row for cluster in draw for row in clusters[cluster]])
        for draw in literal_draws(len(clusters), 200, seed=3)
    ]
    estimate = interval(aggregate, rows, seed=3, resamples=200)
    assert estimate.value == pytest.approx(aggregate.value(rows), abs=1e-12)
    assert [estimate.low, estimate.high] == pytest.approx(np.quantile(figures, [0.025, 0.975]), abs=1e-12)
    assert (estimate.n, estimate.clusters) == (sum(map(len, clusters)), len(clusters))


def test_pairs_agree_with_literal_resampling_of_rows():
    rows_a, rows_b = make_rows(), make_rows(better=0.1)
    shared = {r["id"] for r in rows_a if r["scores"]["m"] is not None}
    shared &= {r["id"] for r in rows_b if r["scores"]["m"] is not None}
    table_b = {row["id"]: row for row in rows_b}
    clusters = clusters_of([row for row in rows_a if row["id"] in shared])
    mean = Mean("m")
    changes = []
    for draw in literal_draws(len(clusters), 200, seed=5):
        drawn = [row for cluster in draw for row in clusters[cluster]]
        changes.append(mean.value([table_b[row["id"]] for row in drawn]) - mean.value(drawn))
    estimate = paired_interval(mean, rows_a, rows_b, seed=5, resamples=200)
    assert [estimate.low, estimate.high] == pytest.approx(np.quantile(changes, [0.025, 0.975]), abs=1e-12)
    assert estimate.below == pytest.approx(np.mean(np.array(changes) < 0))
    assert estimate.above == pytest.approx(np.mean(np.array(changes) > 0))
    assert estimate.value == pytest.approx(estimate.b - estimate.a)
    assert estimate.n == len(shared)


def test_chunks_do_not_change_the_draws(monkeypatch):
    whole = np.concatenate(list(draw_weights(7, 50, 0)))
    monkeypatch.setattr(bootstrap, "_CHUNK", 20)
    chunks = list(draw_weights(7, 50, 0))
    assert len(chunks) == 25
    assert np.array_equal(whole, np.concatenate(chunks))
    assert (whole.sum(1) == 7).all()


def test_coverage_of_clustered_samples():
    """Of nominal 95 % intervals, about 95 % hold the truth; those that ignore the clusters hold it far less often."""
    rng = np.random.default_rng(0)
    held, held_unclustered, runs, truth = 0, 0, 200, 0.5
    for run in range(runs):
        levels = np.clip(rng.normal(truth, 0.3, size=60), 0, 1)  # symmetric, so the mean stays 0.5
        rows = [
            {"id": f"{g}-{i}", "task": "t", "group": g, "scores": {"m": float(rng.random() < level)}}
            for g, level in enumerate(levels)
            for i in range(10)
        ]
        clustered = interval(Mean("m"), rows, seed=run, resamples=400)
        unclustered = interval(Mean("m"), [{**row, "group": None} for row in rows], seed=run, resamples=400)
        assert (clustered.clusters, unclustered.clusters) == (60, 600)
        held += clustered.low <= truth <= clustered.high
        held_unclustered += unclustered.low <= truth <= unclustered.high
    assert 0.90 <= held / runs <= 0.99
    assert held_unclustered / runs < 0.80


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda a: a.name)
def test_order_of_rows_does_not_count_and_the_seed_does(aggregate):
    rows, shuffled = make_rows(), make_rows()
    random.Random(1).shuffle(shuffled)
    assert interval(aggregate, rows) == interval(aggregate, shuffled)  # to the last bit
    assert interval(aggregate, rows) == interval(aggregate, rows)
    assert interval(aggregate, rows, seed=1) != interval(aggregate, rows, seed=2)
    other = make_rows(better=0.1)
    assert paired_interval(aggregate, rows, other) == paired_interval(aggregate, shuffled, other[::-1])


def test_rows_without_group_or_id_are_their_own_clusters():
    rows = [{"scores": {"m": float(i % 2)}} for i in range(10)]
    assert interval(Mean("m"), rows).clusters == 10
    assert interval(Mean("m"), rows) == interval(Mean("m"), rows[::-1])


def test_groups_of_different_tasks_are_different_clusters():
    rows = [{"id": i, "task": task, "group": "0001", "scores": {"m": 1.0}} for i in range(3) for task in ("a", "b")]
    assert interval(Mean("m"), rows).clusters == 2


def test_nothing_to_resample():
    assert interval(Mean("m"), []) == Estimate(None, None, None, 0, 0)
    one = [{"id": i, "task": "t", "group": "g", "scores": {"m": 0.5}} for i in range(4)]
    assert interval(Mean("m"), one) == Estimate(0.5, None, None, 4, 1)
    unscored = [{"id": 1, "task": "t", "group": "g", "scores": {"m": None}}]
    assert interval(Mean("m"), unscored).value is None
    pair = paired_interval(Mean("m"), one, one)
    assert (pair.value, pair.low, pair.below, pair.clusters) == (0.0, None, None, 1)
    assert paired_interval(Mean("m"), one, []).value is None


def test_equal_runs_are_ties():
    rows = make_rows()
    pair = paired_interval(Mean("m"), rows, rows)
    assert (pair.value, pair.low, pair.high, pair.below, pair.above) == (0.0, 0.0, 0.0, 0.0, 0.0)


def test_pairs_are_matched_by_task_id_and_control():
    a = [{"id": "1", "task": "t", "control": c, "group": c, "scores": {"m": 0.0}} for c in (None, "x")]
    b = [{"id": "1", "task": "t", "control": c, "group": c, "scores": {"m": 1.0}} for c in ("x", "y")]
    pair = paired_interval(Mean("m"), a, b)
    assert (pair.n, pair.value) == (1, 1.0)
    with pytest.raises(ValueError, match="the second run has sample '1' twice"):
        paired_interval(Mean("m"), a, [b[0], b[0]])


def test_level_narrows_the_interval_and_must_be_a_share():
    rows = make_rows()
    wide, narrow = interval(Mean("m"), rows), interval(Mean("m"), rows, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(ValueError, match="level must be between 0 and 1, not 95"):
        interval(Mean("m"), rows, level=95)
    assert wide.as_dict()["clusters"] == wide.clusters


def binomial_tail(n, share):
    """Probability of n right answers of n, by counting: the twin of the closed form."""
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n, n + 1))


def clopper_pearson_low(n, level=0.95):
    """The least share under which n of n is no rarer than (1 - level) / 2, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if binomial_tail(n, middle) >= (1 - level) / 2 else (middle, high)
    return low


def perfect(n, score, each=1):
    return [{"id": f"{g}-{i}", "task": "t", "group": g, "scores": {"m": score}} for g in range(n) for i in range(each)]


@pytest.mark.parametrize("n", [2, 5, 200])
def test_all_right_and_all_wrong_are_not_certain(n):
    right, wrong = (interval(Mean("m"), perfect(n, score, each=3)) for score in (1.0, 0.0))
    assert right.low == pytest.approx(clopper_pearson_low(n), abs=1e-12) and right.high == 1.0
    assert wrong.low == 0.0 and wrong.high == pytest.approx(1 - clopper_pearson_low(n), abs=1e-12)
    assert right == interval(Mean("m"), perfect(n, 1.0, each=3), seed=9), "no draws, no seed"
    assert interval(Mean("m"), perfect(n, 1.0), level=0.5).low > right.low


def test_what_is_certain_of_its_clusters_alone():
    """A share counts the clusters it is about; what is no share has no interval where all resamples agree."""
    rows = [
        {"id": i, "task": "t", "group": i, "wanted_expert": "LESIONS" if i < 3 else None, "error": None,
         "output": "<LESIONS()>" if i < 3 else "none"} for i in range(10)
    ]  # fmt: skip
    recall = interval(TriggerRecall(), rows)
    assert (recall.value, recall.clusters) == (1.0, 10) and recall.low == pytest.approx(clopper_pearson_low(3))
    assert interval(FalseTriggerRate(), rows).high == pytest.approx(1 - clopper_pearson_low(7))
    half = interval(Mean("m"), perfect(6, 0.5))
    assert (half.value, half.low, half.high) == (0.5, None, None)
    macro = interval(MacroMean("m"), perfect(6, 1.0))
    assert (macro.value, macro.low) == (1.0, None)
    assert interval(TriggerPrecision(), rows[3:]).low is None, "no call, no share"


def test_all_right_against_all_wrong_is_not_certain_either():
    right, wrong = perfect(5, 1.0, each=2), perfect(5, 0.0, each=2)
    pair = paired_interval(Mean("m"), wrong, right)
    assert (pair.value, pair.high) == (1.0, 1.0) and pair.low == pytest.approx(2 * clopper_pearson_low(5) - 1)
    other = paired_interval(Mean("m"), right, wrong)
    assert (other.value, other.low, other.high) == (-1.0, -1.0, -pair.low)
