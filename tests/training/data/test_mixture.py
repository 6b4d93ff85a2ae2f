"""Mixtures: how often, in which order, the same everywhere."""

from collections import Counter

import numpy as np
import pytest

from tests.helpers.data_folders import good_folder
from training.data.mixture import Mixture, largest_remainder
from training.data.sources import DataError


@pytest.fixture
def folders(tmp_path):
    return [good_folder(tmp_path / name, n) for name, n in (("a", 7), ("b", 12), ("c", 30))]


def by_source(mixture, order):
    return Counter(mixture.locate(int(index))[0] for index in order)


def test_static_index_reaches_every_record(folders):
    mixture = Mixture(folders)
    assert len(mixture) == 49
    assert [mixture[i].id for i in (0, 6, 7, 18, 19, 48)] == ["s0", "s6", "s0", "s11", "s0", "s29"]
    assert mixture.locate(18) == (1, 11) and mixture.where(18) == f"{folders[1]}/records.jsonl:12"
    for index in (-1, 49):
        with pytest.raises(IndexError):
            mixture[index]


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_plain_order_is_a_permutation_that_the_seed_and_epoch_fix(folders, seed):
    first, again = Mixture(folders, seed=seed), Mixture(folders, seed=seed)
    orders = [first.order(epoch) for epoch in range(4)]
    for epoch, order in enumerate(orders):
        assert sorted(order) == list(range(49))
        assert np.array_equal(order, again.order(epoch))  # stateless: any epoch at once, in any process
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], Mixture(folders, seed=seed + 1).order(0))


def test_fractional_repeats_are_complete_over_the_epochs(folders):
    mixture = Mixture(
        [{"path": folders[0], "repeats": 2}, {"path": folders[1], "repeats": 0.25}, {"path": folders[2], "repeats": 0}]
    )
    assert mixture.counts == [14, 3, 0]
    assert by_source(mixture, mixture.order(5)) == {0: 14, 1: 3}
    seen = Counter(int(index) for epoch in range(4) for index in mixture.order(epoch))
    assert [seen[index] for index in range(7)] == [8] * 7
    assert [seen[index] for index in range(7, 19)] == [
        1
    ] * 12  # four quarters are the whole, not four times the same quarter


@pytest.mark.parametrize("epochs", [1, 3, 10])
def test_weights_are_shares_and_even_within_a_source(folders, epochs):
    mixture = Mixture([{"path": path, "weight": w} for path, w in zip(folders, (1, 1, 2))], epoch_size=40)
    seen = Counter()
    for epoch in range(epochs):
        order = mixture.order(epoch)
        assert by_source(mixture, order) == {0: 10, 1: 10, 2: 20}
        seen.update(order.tolist())
    for start, stop in ((0, 7), (7, 19), (19, 49)):
        counts = [seen[index] for index in range(start, stop)]
        assert max(counts) - min(counts) <= 1


def test_limit_and_root(tmp_path, folders):
    mixture = Mixture([{"path": "a", "limit": 3}, "b"], root=tmp_path)
    assert mixture.sizes == [3, 12] and sorted(mixture.order(0)) == list(range(15))
    assert Mixture([{"path": str(folders[0]), "limit": 99}], root=tmp_path / "elsewhere").sizes == [7]


@pytest.mark.parametrize(
    "sources, words",
    [
        ([], "data.sources is empty"),
        ([{"path": "a", "weight": 1, "repeats": 2}], "'repeats' and 'weight' are both set"),
        ([{"path": "a", "weight": 1}, {"path": "b"}], "b has no 'weight'"),
        ([{"path": "a", "weight": -1}], "must be a number of at least 0"),
        ([{"path": "a", "repeats": 0}], "the mixture is empty"),
        ([{"path": "a", "limit": 0}], "limit leaves no records"),
        ([{"path": "a", "wight": 1}], "unknown key 'wight'"),
        ([{"weight": 1}], "needs 'path'"),
    ],
)
def test_illegal_mixtures(tmp_path, folders, sources, words):
    with pytest.raises(DataError, match=words):
        Mixture(sources, root=tmp_path)


def test_largest_remainder_sums_exactly():
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights, total = rng.random(rng.integers(1, 9)) + 1e-9, int(rng.integers(1, 1000))
        counts = np.array(largest_remainder(weights, total))
        assert counts.sum() == total and np.abs(counts - weights * total / weights.sum()).max() < 1


def test_cap_shows_others_each_epoch_and_all_of_them_equally_often(folders):
    mixture = Mixture([{"path": folders[0], "repeats": 2}, {"path": folders[2], "cap": 8}])
    assert mixture.counts == [14, 8]
    seen, epochs = Counter(), 15  # 15 * 8 = 4 passes over 30
    for epoch in range(epochs):
        order = mixture.order(epoch)
        capped = [int(index) for index in order if index >= 7]
        assert len(order) == 22 and len(capped) == 8
        seen.update(capped)
    assert set(seen.values()) == {4} and len(seen) == 30
    first, second = (set(mixture.order(epoch).tolist()) - set(range(7)) for epoch in (0, 1))
    assert not first & second
    weighted = Mixture([{"path": folders[0], "weight": 1}, {"path": folders[1], "weight": 1, "cap": 3}], epoch_size=20)
    assert weighted.counts == [10, 3]
    assert Mixture([{"path": folders[0], "cap": 99}]).counts == [7]  # a cap above the size changes nothing
    with pytest.raises(DataError, match="cap must be"):
        Mixture([{"path": folders[0], "cap": 1.5}])


FROZEN = {  # the orders of runs that exist: whoever changes one of these makes every old run unrepeatable
    "plain": [
        [13, 1, 10, 11, 15, 12, 0, 4, 8, 18, 5, 7, 9, 3, 6, 2, 14, 17, 16],
        [1, 16, 11, 0, 9, 12, 13, 4, 3, 17, 2, 6, 7, 10, 18, 8, 15, 5, 14],
    ],
    "repeats": [
        [1, 6, 0, 18, 8, 5, 4, 3, 4, 3, 6, 2, 1, 9],
        [1, 2, 0, 4, 5, 14, 3, 0, 6, 15, 10, 6, 2, 2],
    ],
    "weights": [
        [17, 18, 14, 16, 10, 15, 0, 8, 13, 9, 5, 10, 11, 3, 6, 2, 14, 7, 12],
        [6, 9, 13, 11, 17, 7, 7, 5, 2, 8, 3, 10, 11, 15, 12, 18, 14, 0, 16],
    ],
    "cap": [
        [9, 5, 0, 3, 13, 2, 11, 18, 8],
        [13, 3, 16, 0, 11, 18, 17, 4, 5],
    ],
}


@pytest.mark.parametrize("name", FROZEN)
def test_orders_never_change(folders, name):
    options = {
        "plain": [{}, {}],
        "repeats": [{"repeats": 1.5}, {"repeats": 0.25}],
        "weights": [{"weight": 1}, {"weight": 3}],
        "cap": [{"cap": 4}, {"repeats": 0.5, "cap": 5}],
    }[name]
    mixture = Mixture([{"path": path, **more} for path, more in zip(folders, options)], seed=7)
    assert [mixture.order(epoch).tolist() for epoch in (0, 3)] == FROZEN[name]
