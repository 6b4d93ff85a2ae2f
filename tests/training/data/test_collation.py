"""Batches: disjoint, equally many on every rank, little padding, the same in every process and after a resume."""

import itertools

import numpy as np
import pytest
import torch

from tests.helpers.data_folders import good_folder
from tests.helpers.fake_processor import FakeProcessor
from tests.helpers.tiny_processor import tiny_processor
from training.data.collation import GroupedBatchSampler, PackingCollator, PaddingCollator, nothing_to_learn
from training.data.dataset import TrainingDataset
from training.data.mixture import Mixture
from vlm.errors import RadioVLMError


def shuffled(n):
    return lambda epoch: np.random.default_rng(epoch).permutation(n)


@pytest.mark.parametrize("n, batch_size, world", itertools.product([7, 64, 101, 333], [1, 3, 8], [1, 2, 4]))
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_are_disjoint_equal_and_complete(n, batch_size, world, drop_last):
    lengths = np.random.default_rng(0).integers(1, 100, n)
    if drop_last and n < batch_size * world:
        with pytest.raises(RadioVLMError, match="too few"):
            GroupedBatchSampler(shuffled(n), batch_size, lengths, 0, world, drop_last=True)
        return
    ranks = [
        GroupedBatchSampler(shuffled(n), batch_size, lengths, r, world, seed=3, drop_last=drop_last)
        for r in range(world)
    ]
    left_over = []
    for epoch in range(3):
        batches = [list(rank.batches(epoch)) for rank in ranks]
        assert {len(b) for b in batches} == {len(ranks[0])}
        assert all(
            len({len(b[step]) for b in batches}) == 1 for step in range(len(ranks[0]))
        )  # equal in every single step
        seen = [index for rank in batches for batch in rank for index in batch]
        assert len(seen) == len(set(seen))
        assert n - len(seen) < (batch_size * world if drop_last else world)
        left_over.append(tuple(sorted(set(range(n)) - set(seen))))
        assert batches == [list(rank.batches(epoch)) for rank in ranks]  # and again the same
    assert not any(left_over) or len(set(left_over)) > 1 or n < 10  # not always the same ones are left out


def test_grouping_pads_little_and_still_mixes():
    n, batch_size, world = 4096, 8, 2
    lengths = np.random.default_rng(0).lognormal(5.7, 0.9, n).astype(int)

    def share(lengths_for_sampler):
        sampler = GroupedBatchSampler(shuffled(n), batch_size, lengths_for_sampler, 0, world)
        batches = list(sampler.batches(0))
        return sum(lengths[b].sum() for b in batches) / sum(lengths[b].max() * len(b) for b in batches)

    assert share(None) < 0.5 and share(lengths) > 0.85
    batches = [np.array(b) for b in GroupedBatchSampler(shuffled(n), batch_size * world, lengths, 0, 1).batches(0)]
    means = np.array([lengths[b].mean() for b in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2  # lengths do not drift over the epoch
    # both ranks work equally long in every step
    assert np.mean([abs(lengths[b[0::2]].max() - lengths[b[1::2]].max()) / lengths[b].max() for b in batches]) < 0.1


@pytest.mark.parametrize("arguments", [(0, 0, 1), (4, 2, 2), (4, -1, 1)])
def test_impossible_shards(arguments):
    batch_size, rank, world = arguments
    with pytest.raises(RadioVLMError, match="make no batches"):
        GroupedBatchSampler(shuffled(10), batch_size, None, rank, world)


@pytest.fixture
def dataset(tmp_path):
    return TrainingDataset(Mixture([good_folder(tmp_path / "d", 20)], seed=5), FakeProcessor())


def test_collator_batches_text_and_images(dataset):
    batch = PaddingCollator(dataset.processor)([dataset[0], dataset[1], dataset[2]])
    assert batch["sample_ids"] == ["s0", "s1", "s2"] and len(set(batch["sources"])) == 1
    assert batch["image_grid_hw"].tolist() == [[2, 2], [2, 2]]
    assert batch["attention_mask"].sum(1).tolist() == [len(dataset[i]["input_ids"]) for i in range(3)]
    text_only = PaddingCollator(dataset.processor, padding_side="left")([dataset[0], dataset[3]])
    assert "pixel_values" not in text_only and text_only["attention_mask"][:, -1].all()


def test_packed_rows_hold_the_samples_end_to_end(dataset):
    one, two, three = (dataset[i] for i in range(3))
    batch = PackingCollator(tiny_processor())([[one, two], [three]])
    plain = PaddingCollator(tiny_processor())([one, two, three])
    assert batch["sample_ids"] == plain["sample_ids"] == ["s0", "s1", "s2"] and batch["sources"] == plain["sources"]
    lengths = [len(sample["input_ids"]) for sample in (one, two, three)]
    first = lengths[0] + lengths[1]
    assert batch["input_ids"].shape == (2, first) and batch["seq_idx"].dtype == torch.int32
    assert batch["seq_idx"].tolist() == [
        [0] * lengths[0] + [1] * lengths[1],
        [0] * lengths[2] + [1] * (first - lengths[2]),
    ]
    assert batch["attention_mask"].tolist() == [[1] * first, [1] * lengths[2] + [0] * (first - lengths[2])]
    for key in ("input_ids", "labels", "mm_token_type_ids"):
        joined = torch.cat([sample[key] for sample in (one, two, three)])
        assert torch.equal(batch[key][batch["attention_mask"].bool()], joined)
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    assert torch.equal(batch["pixel_values"], plain["pixel_values"])


def test_a_batch_of_bad_samples_has_nothing_to_learn():
    batch = PackingCollator(tiny_processor())([[nothing_to_learn(tiny_processor())]])
    assert batch["input_ids"].shape == (1, 1) and (batch["labels"] == -100).all() and batch["sample_ids"] == [""]
