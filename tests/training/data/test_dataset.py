"""Encoding, the cache, and what happens to samples that are bad in each of the ways the validator looks for."""

import json
import pickle
import time
from itertools import islice

import numpy as np
import pytest
import torch

from tests.helpers.data_folders import good_folder, record, write_image, write_records
from tests.helpers.fake_processor import FakeProcessor
from training.data.bad_samples import BadSamples, TooManyBadSamples
from training.data.cache import EncodedCache, as_bytes
from training.data.collation import GroupedBatchSampler
from training.data.dataset import TrainingDataset
from training.data.loader import BatchLoader, BatchWork
from training.data.mixture import Mixture
from training.data.plan import GroupedPlan
from vlm.errors import RadioVLMError, SampleError


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        if key == "pixel_values":
            one, other = ({**x, key: x[key] / 255 if x[key].dtype == torch.uint8 else x[key]} for x in (one, other))
        equal = torch.equal(one[key], other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key]
        assert equal, key


def dataset_of(folder, **options):
    return TrainingDataset(Mixture([folder]), FakeProcessor(), **options)


def test_encodes_and_caches_without_loss(tmp_path):
    folder = good_folder(tmp_path / "d", 12)
    plain, cached = dataset_of(folder), dataset_of(folder, cache=True)
    cached.warm(progress=False)
    assert len(cached.cache) == 12 and len(cached.processor.encoded_ids) == 12
    for index in range(12):
        same(plain[index], cached[index])
    assert len(cached.processor.encoded_ids) == 12
    assert cached.cache.bytes < sum(t.numel() * t.element_size() for i in range(12) for t in plain[i].values()
                                    if isinstance(t, torch.Tensor)) / 2  # fmt: skip
    assert cached.lengths().tolist() == [len(plain[i]["input_ids"]) for i in range(12)]
    assert (plain.lengths() > 0).all()


def test_lengths_do_not_depend_on_what_was_read_before(tmp_path):
    folder = good_folder(tmp_path / "d", 12)
    fresh, used = dataset_of(folder, cache=True), dataset_of(folder, cache=True)
    for index in range(6):
        used[index]
    assert (fresh.lengths() == used.lengths()).all()


def test_byte_pixels_are_kept_as_bytes_and_others_as_they_are():
    levels = torch.randint(0, 256, (50, 48))
    assert as_bytes(levels.float() / 255).dtype == torch.uint8 and torch.equal(as_bytes(levels.float() / 255), levels)
    for pixels in (torch.rand(50, 48), (levels.float() / 255).bfloat16()):
        assert as_bytes(pixels) is pixels


def test_full_cache_keeps_working(tmp_path):
    dataset = dataset_of(good_folder(tmp_path / "d", 12), cache=EncodedCache(max_bytes=2000))
    first = [dataset[index] for index in range(12)]
    assert dataset.cache.full and 0 < len(dataset.cache) < 12
    for index in range(12):
        same(dataset[index], first[index])


def bad_record(folder, how):
    """A record that is bad in one way, and the reason it must be counted under."""
    image = lambda name: record("bad", images=(name,))  # noqa: E731
    if how == "missing":
        return image("images/none.png"), "missing_file"
    if how == "truncated":
        path = write_image(folder / "images/cut.png", size=(300, 300))
        path.write_bytes(path.read_bytes()[:-300])
        return image("images/cut.png"), "corrupt_image"
    if how == "empty":
        (folder / "images/empty.png").write_bytes(b"")
        return image("images/empty.png"), "corrupt_image"
    if how == "leaves":
        return image("../../x.png"), "outside_folder"
    if how == "more_tags":
        turns = [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "A"}]
        return {"id": "bad", "image": "images/1.png", "conversations": turns}, "tag_mismatch"
    return {
        "json": ('{"id": "bad", ', "bad_json"),
        "masked": (record("bad", answer=""), "no_labels"),
        "no_answer": ({"id": "bad", "messages": [{"role": "user", "content": "Q"}]}, "no_labels"),
        "long": (record("bad", question="Q" * 500), "too_long"),
        "schema": ({"id": "bad", "messages": 3}, "schema"),
    }[how]


HOW = ["missing", "truncated", "empty", "leaves", "more_tags", "json", "masked", "no_answer", "long", "schema"]


@pytest.fixture
def spoiled(tmp_path):
    """folder(how, n_bad): 100 records of which n_bad, from number 5 on, are bad in the same way."""

    def make(how, n_bad):
        folder = good_folder(tmp_path / "d", 100 - n_bad)
        lines = (folder / "records.jsonl").read_text().splitlines()
        bad, reason = bad_record(folder, how)
        write_records(folder, lines[:5] + [bad] * n_bad + lines[5:])
        return folder, reason

    return make


@pytest.mark.parametrize("how", HOW)
def test_bad_sample_is_skipped_counted_and_reported(spoiled, tmp_path, how):
    folder, reason = spoiled(how, 1)
    report_path = tmp_path / "out" / "bad_samples.jsonl"
    dataset = dataset_of(folder, max_length=100, report_path=report_path)
    encoded = [dataset[index] for index in range(100)]
    assert [one["sample_id"] for one in encoded[4:7]] == ["s4", "s5", "s5"]  # the next good one stands in
    same(encoded[5], encoded[6])
    rows = [json.loads(line) for line in report_path.read_text().splitlines()]
    assert len(rows) == 1 and rows[0]["reason"] == reason and rows[0]["where"] == f"{folder}/records.jsonl:6"
    assert rows[0]["id"] == ("records:6" if how == "json" else "bad")
    report = dataset.report()
    assert report["num_bad"] == 1 and report["share"] == 0.01 and report["reasons"] == {reason: 1}
    assert dataset_of(folder, max_length=100)[5]["sample_id"] == "s5"  # another rank finds the same substitute


@pytest.mark.parametrize("how", HOW)
def test_too_many_bad_samples_stop_the_run(spoiled, how):
    folder, reason = spoiled(how, 4)
    dataset = dataset_of(folder, max_length=100, bad_share_limit=0.03)
    with pytest.raises(
        TooManyBadSamples,
        match=rf"4 of the first 9 .*4 {reason}.*bad_share_limit=0.03.*\n  {folder}/records.jsonl:6: sample",
    ):
        for index in range(100):
            dataset[index]


@pytest.mark.parametrize("seed", range(20))
def test_share_limit_neither_panics_nor_sleeps(seed):
    """At half the limit a run goes through whatever the order; at four times the limit it stops in the first tenth."""
    size, limit = 5000, 0.02
    rng = np.random.default_rng(seed)

    def seen_until_stop(share):
        bad = set(rng.permutation(size)[: int(share * size)].tolist())
        counter = BadSamples(size, limit)
        for index in rng.permutation(size).tolist():
            if index not in bad:
                counter.good(index)
                continue
            try:
                counter.add(index, SampleError("x", "x"), "x")
            except TooManyBadSamples:
                return counter.num_seen
        return size

    assert seen_until_stop(limit / 2) == size and seen_until_stop(4 * limit) < size / 10


def test_share_limit_at_its_ends(tmp_path):
    folder = write_records(tmp_path / "d", ["nonsense"] * 10)
    with pytest.raises(TooManyBadSamples, match="1 of the first 1"):
        dataset_of(folder, bad_share_limit=0)[0]
    with pytest.raises(SampleError, match="all 10 are bad"):
        dataset_of(folder, bad_share_limit=1)[0]
    with pytest.raises(RadioVLMError, match="bad_share_limit must be between 0 and 1"):
        dataset_of(folder, bad_share_limit=2)


def test_substitute_comes_from_the_same_source(tmp_path):
    first = write_records(tmp_path / "a", [record("a0"), "bad", "bad"])
    second = write_records(tmp_path / "b", [record("b0"), record("b1")])
    dataset = TrainingDataset(Mixture([first, second]), FakeProcessor(), bad_share_limit=1)
    assert [dataset[index]["sample_id"] for index in range(5)] == ["a0", "a0", "a0", "b0", "b1"]
    lost = write_records(tmp_path / "c", ["bad"])
    dataset = TrainingDataset(Mixture([lost, second]), FakeProcessor(), bad_share_limit=1)
    assert dataset[0]["sample_id"] == "b0"


def test_unforeseen_exceptions_are_bad_samples_too(tmp_path):
    class Odd(FakeProcessor):
        def encode(self, messages, **options):
            raise ZeroDivisionError("odd picture")

    dataset = TrainingDataset(Mixture([good_folder(tmp_path / "d", 5)]), Odd(), bad_share_limit=0)
    with pytest.raises(TooManyBadSamples, match="ZeroDivisionError: odd picture"):
        dataset[0]


def padded_loader(dataset, batch_size, workers=0):
    sampler = GroupedBatchSampler(dataset.order, batch_size)
    return BatchLoader(GroupedPlan(sampler), BatchWork(dataset, replace=True), num_workers=workers)


def test_workers_report_into_one_file(spoiled, tmp_path):
    folder, _ = spoiled("missing", 3)
    dataset = dataset_of(folder, bad_share_limit=0.05, report_path=tmp_path / "bad_samples.jsonl")
    assert len(list(islice(padded_loader(dataset, 4, workers=2), 50))) == 50  # two epochs
    assert dataset.bad.bad == {}  # this process saw none of them
    assert dataset.report()["num_bad"] == 3
    assert pickle.loads(pickle.dumps(dataset))[5]["sample_id"] == "s5"


def test_with_the_real_processor(tmp_path):
    """Text, images, a cut file: cached and uncached runs give the same batches."""
    from tests.helpers.tiny_processor import tiny_processor

    folder, processor = good_folder(tmp_path / "d", 40), tiny_processor()
    cut = folder / "images/7.png"
    cut.write_bytes(cut.read_bytes()[:60])
    datasets = [TrainingDataset(Mixture([folder]), processor, 200, 0.03, cache=cache) for cache in (False, True)]
    datasets[1].warm(progress=False)
    loaders = [islice(padded_loader(dataset, 8), 5) for dataset in datasets]
    for one, other in zip(*loaders, strict=True):
        assert one.keys() == other.keys() >= {"input_ids", "labels", "pixel_values", "image_grid_hw", "sample_ids"}
        for key, value in one.items():
            assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
    for dataset in datasets:
        assert dataset.report()["ids"] == ["s7"] and dataset.report()["reasons"] == {"truncated_image": 1}
        assert dataset[7]["sample_id"] == "s8"
    exact = [len(datasets[0][index]["input_ids"]) for index in range(40)]
    assert abs(datasets[0].lengths() - exact).max() < 40 and datasets[1].lengths().tolist() == exact


def test_overhead_is_negligible(tmp_path):
    """This layer's own time a sample; `make check` measures it beside the real processor."""

    class Free(FakeProcessor):
        answer = {"input_ids": torch.ones(9), "labels": torch.ones(9)}

        def encode(self, messages, **options):
            return self.answer

    def fastest(dataset):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            for index in range(200):
                dataset[index]
            times.append((time.perf_counter() - start) / 200)
        return min(times)

    folder = good_folder(tmp_path / "d", 200)
    assert fastest(TrainingDataset(Mixture([folder]), Free())) < 1e-3
    cached = dataset_of(folder, cache=True)
    cached.warm(progress=False)
    assert fastest(cached) < 1e-4
