"""The endless loader: today's padded batches, packs, and a position that is exact for any number of workers."""

import json
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.helpers.data_folders import good_folder, record, write_records
from tests.helpers.tiny_processor import tiny_processor
from training.data.buffered_plan import BufferedPlan, LengthGroups, PackedRows
from training.data.collation import GroupedBatchSampler
from training.data.dataset import TrainingDataset
from training.data.feed import Ticket
from training.data.loader import BatchLoader, BatchWork, Measurer
from training.data.map_feed import MapFeed
from training.data.mixture import Mixture
from training.data.plan import GroupedPlan
from training.data.resharding import reshard
from training.data.sources import DataError
from vlm.errors import SampleError

ROOT = Path(__file__).resolve().parents[3]
N, LENGTH, BUFFER = 40, 160, 12


def dataset(folder: Path, **options) -> TrainingDataset:
    return TrainingDataset(Mixture([folder], seed=3), tiny_processor(), LENGTH, 0.5, **options)


class ListFeed(MapFeed):
    """A feed whose tickets carry their samples, as those of streams do."""

    def __init__(self, data: TrainingDataset, rank: int, world_size: int) -> None:
        super().__init__(data.samples.order, rank, world_size, 3)
        self.samples = data.samples

    def __iter__(self):
        for ticket in super().__iter__():
            yield Ticket(ticket.number, ticket.epoch, None, self.samples[ticket.index])


def loader(folder: Path, kind: str, workers: int = 0, rank: int = 0, world_size: int = 1, **options) -> BatchLoader:
    data = dataset(folder, **options)
    if kind == "grouped":
        sampler = GroupedBatchSampler(data.order, 3, data.lengths(), rank, world_size, seed=3)
        return BatchLoader(GroupedPlan(sampler), BatchWork(data, replace=True), workers)
    if kind == "packs":
        plan = BufferedPlan(
            MapFeed(data.order, rank, world_size, 3), Measurer(data, workers), PackedRows(LENGTH, BUFFER), rows=2
        )
        return BatchLoader(plan, BatchWork(data, packed=True), workers)
    stream = TrainingDataset(None, data.processor, LENGTH, 0.5)
    plan = BufferedPlan(ListFeed(data, rank, world_size), Measurer(stream, workers), LengthGroups(3, BUFFER, 3))
    return BatchLoader(plan, BatchWork(stream), workers)


KINDS = ("grouped", "packs", "stream")


def ids(batches) -> list[list[str]]:
    return [batch["sample_ids"] for batch in batches]


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key], key


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return good_folder(tmp_path_factory.mktemp("data") / "d", N)


def plain_epoch(data: TrainingDataset, epoch: int, size: int, seed: int) -> list[list[int]]:
    """The readable twin of the padded order: sort stretches of the shuffled epoch, cut them, shuffle the pieces."""
    order = data.order(epoch).tolist()
    whole = len(order) // size * size
    pieces = []
    for start in range(0, whole, 32 * size):
        stretch = order[start : min(start + 32 * size, whole)]
        stretch = sorted(stretch, key=lambda i: -data.lengths()[i])
        pieces += [stretch[i : i + size] for i in range(0, len(stretch), size)]
    pieces = [pieces[i] for i in np.random.default_rng([seed, 3, epoch]).permutation(len(pieces))]
    return pieces + ([order[whole:]] if order[whole:] else [])


def test_padded_batches_are_those_of_the_plain_twin_epoch_after_epoch(folder):
    data = dataset(folder)
    wanted = [[f"s{i}" for i in batch] for epoch in range(2) for batch in plain_epoch(data, epoch, 3, seed=3)]
    assert len(wanted) == 28 and ids(islice(loader(folder, "grouped"), 28)) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_position_is_exact_at_every_batch_and_for_any_number_of_workers(folder, kind):
    count = 33  # more than two epochs
    source = loader(folder, kind)
    whole, states = [], [source.state_dict()]
    for batch in islice(source, count):
        whole.append(batch)
        states.append(json.loads(json.dumps(source.state_dict())))
    assert max(len(json.dumps(state)) for state in states) < 2000
    for at in (0, 1, 2, 7, 13, 14, 20):
        resumed = loader(folder, kind)
        resumed.load_state_dict(states[at])
        assert resumed.state_dict() == states[at]
        assert ids(islice(resumed, 5)) == ids(whole[at : at + 5]), at
        assert resumed.state_dict() == states[at + 5]
    busy = loader(folder, kind, workers=2)
    found = list(islice(busy, 6))
    for one, other in zip(found, whole):
        same(one, other)
    assert busy.state_dict() == states[6], "however far the workers read ahead"
    resumed = loader(folder, kind, workers=1)
    resumed.load_state_dict(states[6])
    assert ids(islice(resumed, 4)) == ids(whole[6:10])
    assert ids(islice(busy, 4)) == ids(whole[6:10]), "iterating again goes on where it stands"


def test_packs_hold_every_sample_once_an_epoch_and_report_how_full_they_are(folder):
    source = loader(folder, "packs")
    batches = list(islice(source, 30))
    lengths = dict(zip((f"s{i}" for i in range(N)), (len(dataset(folder)[i]["input_ids"]) for i in range(N))))
    for batch in batches:
        numbers = (batch["seq_idx"] * batch["attention_mask"]).max(dim=1).values + 1
        assert int(numbers.sum()) == len(batch["sample_ids"]) == len(batch["sources"])
        assert batch["input_ids"].shape[0] == 2 and batch["input_ids"].shape[1] <= LENGTH
        assert int(batch["attention_mask"].sum()) == sum(lengths[name] for name in batch["sample_ids"])
    names = [name for batch in batches for name in batch["sample_ids"]]
    counts = [names.count(name) for name in lengths]
    assert max(counts) - min(counts) <= 2, "all but those that wait came equally often"
    report = source.report()["packing"]
    assert report["packs"] == 60 and report["samples"] == len(names)
    assert report["fill"] == pytest.approx(sum(lengths[name] for name in names) / (60 * LENGTH), abs=1e-4) and (
        report["fill"] > 0.85
    )
    assert 0 < report["waiting"] <= 3 * BUFFER and 0.02 < report["media_share"] < 0.5


def test_sizes_are_measured_once_and_without_opening_pictures(folder, monkeypatch):
    source = loader(folder, "packs")
    measured = []
    original = source.dataset.measure
    monkeypatch.setattr(source.dataset, "measure", lambda ticket: measured.append(ticket.index) or original(ticket))
    list(islice(source, 40))
    assert sorted(measured) == list(range(N))


@pytest.mark.parametrize("kind", ["packs", "stream"])
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_samples_are_left_out_counted_and_written_down(tmp_path, kind, workers):
    folder = good_folder(tmp_path / "d", 30)
    lines = (folder / "records.jsonl").read_text().splitlines()
    lines[4] = "nonsense" if kind == "packs" else json.dumps(record("s4", answer=" "))
    lines[9] = json.dumps(record("s9", question="Q" * 500))
    write_records(folder, lines)
    cut = folder / "images/7.png"  # found in decoding alone
    cut.write_bytes(cut.read_bytes()[:60])
    source = loader(folder, kind, workers)
    source.dataset.bad.path = tmp_path / "bad.jsonl"
    names = {name for batch in islice(source, 40) for name in batch["sample_ids"]}
    assert names == {f"s{i}" for i in range(30)} - {"s4", "s7", "s9"}
    report = source.dataset.report()
    assert report["num_bad"] == 3 and report["reasons"]["too_long"] == report["reasons"]["truncated_image"] == 1


def test_a_set_without_a_good_sample_ends_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("training.data.buffered_plan.MOST_BAD", 20)
    folder = write_records(tmp_path / "d", ["nonsense"] * 5)
    data = TrainingDataset(Mixture([folder]), tiny_processor(), LENGTH, 1.0)
    plan = BufferedPlan(MapFeed(data.order), Measurer(data), PackedRows(LENGTH, BUFFER))
    with pytest.raises(SampleError, match="no sample of the training set can be used: 21 in a row"):
        next(iter(BatchLoader(plan, BatchWork(data, packed=True))))


def test_a_position_of_other_data_is_refused(folder, tmp_path):
    other = good_folder(tmp_path / "d", N + 1)
    for kind in ("grouped", "packs"):
        state = loader(folder, kind).state_dict()
        with pytest.raises(DataError, match="size = 40, this run has 41"):
            loader(other, kind).load_state_dict(state)
        with pytest.raises(DataError, match="kind = "):
            loader(folder, "packs" if kind == "grouped" else "grouped").load_state_dict(state)
        with pytest.raises(DataError, match="world_size = 1"):
            loader(folder, kind, rank=1, world_size=2).load_state_dict(state)


@pytest.mark.parametrize("old, new", [(2, 1), (1, 2), (2, 4), (4, 2), (3, 2)])
def test_another_number_of_ranks_neither_loses_nor_repeats_a_sample(folder, old, new):
    """Packed samples handed out before and still to come after: each once an epoch."""
    before, states = [], []
    for rank in range(old):
        source = loader(folder, "packs", rank=rank, world_size=old)
        before += sum(ids(islice(source, 1 + rank % 2)), [])
        states.append(json.loads(json.dumps(source.state_dict())))
    after = reshard(states, new)
    names, places = [], []
    for rank, state in enumerate(after):
        feed = MapFeed(dataset(folder).order, rank, new, 3)
        feed.restore(state["feed"])
        names += [f"s{ticket.index}" for ticket in islice(feed, 4 * N) if ticket.epoch < 3]
        source = loader(folder, "packs", rank=rank, world_size=new)
        source.load_state_dict(state)
        places += sum(ids(islice(source, 1)), [])
    assert sorted(before + names) == sorted(f"s{i}" for i in range(N) for _ in range(3))
    assert places and set(places) <= set(names)
    total = sum(state["statistics"]["samples"] for state in after)
    assert total == len(before) == sum(state["statistics"]["samples"] for state in states)


@pytest.mark.parametrize("old, new", [(2, 1), (1, 2), (2, 4), (4, 2)])
def test_padded_batches_for_another_number_of_ranks(folder, old, new):
    before, states = [], []
    for rank in range(old):
        source = loader(folder, "grouped", rank=rank, world_size=old)
        before += sum(ids(islice(source, 2)), [])
        states.append(source.state_dict())
    after = []
    for rank, state in enumerate(reshard(json.loads(json.dumps(states)), new)):
        source = loader(folder, "grouped", rank=rank, world_size=new)
        source.load_state_dict(state)
        while source.plan.mark().epoch == 0:
            batch = next(iter(source), None)
            if source.plan.mark().epoch == 0:
                after += batch["sample_ids"]
    assert len(before + after) == len(set(before + after)) > N - 4 * max(old, new)


def test_a_step_has_the_same_samples_for_any_split(folder):
    """One process with two micro-batches, two with one each: the same samples a step, also after a change."""
    data = dataset(folder)

    def steps(world_size: int, batch_size: int, accumulation: int, states=None):
        found, ends = [], []
        for rank in range(world_size):
            sampler = GroupedBatchSampler(
                data.order, batch_size, data.lengths(), rank, world_size, 3, accumulation=accumulation
            )
            source = BatchLoader(GroupedPlan(sampler), BatchWork(data, replace=True))
            if states:
                source.load_state_dict(states[rank])
            batches = ids(islice(source, 6 * accumulation))
            found.append([sum(batches[i : i + accumulation], []) for i in range(0, len(batches), accumulation)])
            ends.append(source.state_dict())
        return [sorted(sum(parts, [])) for parts in zip(*found)], ends

    wanted, _ = steps(1, 8, 1)
    first, ends = steps(2, 2, 2)
    assert first == steps(1, 4, 2)[0] == wanted
    second = steps(2, 2, 2, ends)[0]
    assert steps(1, 4, 2, reshard(ends, 1))[0] == second != wanted


def test_states_that_are_not_those_of_one_run_are_refused(folder):
    states = [loader(folder, "packs", rank=rank, world_size=2).state_dict() for rank in range(2)]
    with pytest.raises(DataError, match="one file for each rank"):
        reshard(states[::-1], 1)
    with pytest.raises(DataError, match="one file for each rank"):
        reshard([states[0], loader(folder, "grouped").state_dict()], 1)
    streamed = [{**state, "feed": {"kind": "stream"}} for state in states]
    with pytest.raises(DataError, match="streamed sources were read by 2 processes"):
        reshard(streamed, 3)


def test_the_loader_leaves_the_global_random_state_alone(folder):
    torch.manual_seed(0)
    expected = torch.rand(1)
    for kind in KINDS:
        torch.manual_seed(0)
        list(islice(loader(folder, kind), 3))
        assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_workers_outlive_the_signals_that_ask_the_trainer_to_save(folder, kind):
    """Launchers signal whole process groups; a dead worker would end the trainer before its checkpoint is written."""
    quiet, signalled = iter(loader(folder, kind)), iter(loader(folder, kind, workers=2))
    same(next(signalled), next(quiet))
    workers = [child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())]
    assert workers
    for number in (signal.SIGTERM, signal.SIGUSR1):
        for worker in workers:
            worker.send_signal(number)
        time.sleep(0.1)
        for _ in range(8):
            same(next(signalled), next(quiet))
    signalled.close()
    del signalled
    assert not psutil.wait_procs(workers, timeout=20)[1], "they end with their loader"


def test_a_process_that_ends_with_an_error_takes_its_workers_along(folder):
    """... though they do not hear the SIGTERM by which multiprocessing would end them."""
    script = f"""
import sys
from pathlib import Path
from tests.training.data.test_loader import loader
batches = iter(loader(Path({str(folder)!r}), "packs", workers=2))
next(batches)
raise RuntimeError("as a trainer may")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("RuntimeError: as a trainer may"), done.stderr
