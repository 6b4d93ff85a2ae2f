"""Random rates of video pruning in training: by seed, epoch and sample alone, from cached samples too."""

import numpy as np
import pytest

from tests.helpers.tiny_processor import tiny_processor
from training.data.collation import GroupedBatchSampler
from training.data.dataset import TrainingDataset
from training.data.feed import Ticket
from training.data.loader import BatchLoader, BatchWork
from training.data.plan import GroupedPlan
from training.data.sample import Sample
from training.recipe import Data, RecipeError
from training.recipe.loading import load_recipe


def samples(count: int = 4) -> list[Sample]:
    made = []
    for number in range(count):
        frames = np.random.default_rng(number).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
        content = [{"type": "video", "video": frames}, {"type": "text", "text": "?"}] if number else []
        content = content or [{"type": "text", "text": "no video"}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}
        made.append(Sample(f"s{number}", "made", [{"role": "user", "content": content}, answer]))
    return made


def dataset(seed: int = 0, cache: bool = False, rates=(0.2, 0.9)) -> TrainingDataset:
    return TrainingDataset(samples(), tiny_processor(), cache=cache, video_pruning=rates, seed=seed)


def lengths(data: TrainingDataset, epoch: int = 0) -> list[int]:
    return [len(data.get(i, epoch)["input_ids"]) for i in range(len(data))]


def test_rates_change_with_epoch_and_seed_and_nothing_else():
    data = dataset()
    first = lengths(data)
    assert lengths(data) == first == lengths(dataset(cache=True))
    second = lengths(data, 1)
    assert second[0] == first[0], "a sample without a video"
    assert all(a != b for a, b in zip(first[1:], second[1:]))
    assert lengths(dataset(seed=1))[1:] != first[1:]
    whole = lengths(dataset(rates=None))
    assert all(a < b for a, b in zip(first[1:], whole[1:]))


def test_a_cached_sample_is_drawn_anew_each_epoch():
    data = dataset(cache=True)
    first = lengths(data)
    assert lengths(data, 1)[1:] != first[1:]
    assert lengths(data) == first
    for sample in (data[i] for i in range(1, 4)):
        kept = int((sample["mm_token_type_ids"] == 2).sum())
        assert kept == int(sample["video_num_tokens"]) and 0.05 < kept / (8 * 4) < 0.85


def test_the_loader_hands_the_epoch_on():
    data = dataset()
    loader = BatchLoader(GroupedPlan(GroupedBatchSampler(data.order, 4)), BatchWork(data, replace=True))
    found = [batch["video_num_tokens"].tolist() for _, batch in zip(range(2), loader)]
    whole = [[int(data.get(i, epoch)["video_num_tokens"]) for i in range(1, 4)] for epoch in range(2)]
    assert found == whole and found[0] != found[1]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("rates", [None, (0.2, 0.9)])
def test_a_ticket_is_measured_as_it_will_be_drawn(cache, rates):
    data = dataset(cache=cache, rates=rates)
    for epoch in range(3):
        for index in range(len(data)):
            ticket = Ticket(10 * epoch + index, epoch, index)
            size, encoded = data.measure(ticket), data.take(ticket)
            assert size.tokens == len(encoded["input_ids"]) and encoded["sample_id"] == f"s{index}"
            assert size.media_tokens == int((encoded["mm_token_type_ids"] == 2).sum())


def test_impossible_rates_are_refused():
    for rates in ([0.5], [0.9, 0.1], [0.0, 1.0]):
        with pytest.raises(RecipeError, match="video_pruning"):
            Data(video_pruning=rates)


def test_rates_are_read_from_a_recipe_and_its_overrides(tmp_path):
    (tmp_path / "r.yaml").write_text("data: {video_pruning: [0.1, 0.5]}\n")
    assert load_recipe(tmp_path / "r.yaml").data.video_pruning == [0.1, 0.5]
    assert load_recipe(tmp_path / "r.yaml", ["data.video_pruning=[0, 0.75]"]).data.video_pruning == [0.0, 0.75]
    assert load_recipe(tmp_path / "r.yaml", ["data.video_pruning=null"]).data.video_pruning is None
    with pytest.raises(RecipeError, match="data.video_pruning.*list"):
        load_recipe(tmp_path / "r.yaml", ["data.video_pruning=0.5"])
