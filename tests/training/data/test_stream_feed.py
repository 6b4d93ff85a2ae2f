"""The feed of streamed sources: its order, its exact place, the thread that reads ahead, and batches made from it."""

import gc
import json
import os
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.data_folders import record, write_records
from tests.helpers.streamed_folders import number, parquet_folder
from tests.helpers.tiny_processor import tiny_processor
from training.data.buffered_plan import BufferedPlan, LengthGroups, PackedRows
from training.data.dataset import TrainingDataset
from training.data.loader import BatchLoader, BatchWork, Measurer, unmeasured
from training.data.sources import DataError
from training.data.stream_feed import StreamFeed, StreamLane, turn

pytest.importorskip("datasets", reason="optional package absent: datasets")
SIZES, LINES, BLOCK = (9, 1, 7, 3), 11, 6
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two sources: 20 records in four parquet files, 11 in JSON lines that go on counting at 100."""
    folder = tmp_path_factory.mktemp("feed")
    parquet_folder(folder / "parquet", SIZES, pictures=True)
    write_records(folder / "lines", [record(f"s{n}", f"Q{n}", "y" * (n % 7 + 1)) for n in range(100, 100 + LINES)])
    return folder


STREAMED = {"path": "parquet", "streaming": True}
LIMITED = {"path": "parquet", "streaming": True, "limit": 17}
MIXED = [{**STREAMED, "weight": 3}, {"path": "lines", "weight": 1.0}]
BOTH = [{**STREAMED, "weight": 2}, {"path": "lines", "weight": 5, "streaming": True, "limit": 7}]


def feed(folder: Path, sources: list[dict], rank: int = 0, world_size: int = 1, **options) -> StreamFeed:
    options = {"seed": 3, "block": BLOCK, **options}
    return StreamFeed(sources, rank=rank, world_size=world_size, root=folder, **options)


def names(tickets) -> list[tuple[int, int, int]]:
    return [(ticket.number, ticket.epoch, number(ticket.sample)) for ticket in tickets]


def place(state: dict) -> dict:
    """A state without what `datasets` writes down for itself, where one place has several names."""
    if "feed" in state:
        return {**state, "feed": place(state["feed"])}
    lanes = json.loads(json.dumps(state["lanes"]))
    for lane in lanes:
        (lane["start"].get("position") or {}).pop("state", None)
    return {**state, "lanes": lanes}


def twin(sources: list[dict], rank: int, world_size: int, count: int) -> list[tuple[int, int, int]]:
    """The slow twin: every source's endless order as a list, of which the ticket's turn takes the next."""
    orders = [lane_twin(one, place, rank, world_size, count) for place, one in enumerate(sources)]
    weights = [one.get("weight", 1.0) for one in sources]
    taken, found = [0] * len(sources), []
    for ticket in range(count):
        source = turn([weight / sum(weights) for weight in weights], taken, ticket)
        found.append((ticket, *orders[source][taken[source]]))
        taken[source] += 1
    return found


def lane_twin(spec: dict, place: int, rank: int, world_size: int, count: int) -> list[tuple[int, int]]:
    rows = list(range(TOTAL)) if spec["path"] == "parquet" else list(range(100, 100 + LINES))
    rows, order = rows[: spec.get("limit")], []
    if not spec.get("streaming"):
        for epoch in range(count * world_size // len(rows) + 1):
            order += [(epoch, rows[i]) for i in np.random.default_rng([3, 2, place, epoch]).permutation(len(rows))]
        return order[rank::world_size]
    if spec["path"] == "parquet" and "limit" not in spec and len(SIZES) % world_size == 0:
        ends = np.cumsum(SIZES).tolist()
        rows = sum((rows[end - size : end] for size, end in zip(SIZES[rank::world_size], ends[rank::world_size])), [])
    else:
        rows = rows[rank::world_size]
    for epoch in range(count // len(rows) + 1):
        for block, start in enumerate(range(0, len(rows), BLOCK)):
            part = rows[start : start + BLOCK]
            mixed = np.random.default_rng([3, 6, place, rank, epoch, block]).permutation(len(part))
            order += [(epoch, part[i]) for i in mixed]
    return order


SETS = {"one": [STREAMED], "limit": [LIMITED], "beside map-style": MIXED, "two streams": BOTH}


@pytest.mark.parametrize("sources", SETS.values(), ids=SETS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_order_is_that_of_the_plain_twin_pass_after_pass(folder, sources, world_size):
    seen = []
    for rank in range(world_size):
        found = names(islice(feed(folder, sources, rank, world_size), 80))
        assert found == twin(sources, rank, world_size, 80)
        seen += [name for _, epoch, name in found if epoch == 0 and name < 100]
    assert sorted(seen) == list(range(sources[0].get("limit", TOTAL))), "the first pass of all ranks together"


def test_seed_and_pass_change_the_order(folder):
    orders = [[name for *_, name in names(islice(feed(folder, [STREAMED], seed=seed), 40))] for seed in (3, 4)]
    parts = [order[start : start + BLOCK] for order in orders for start in (0, TOTAL)]
    assert all(sorted(part) == sorted(parts[0]) for part in parts) and len(set(map(tuple, parts))) == 4


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5], [0.9, 0.1], [0.61, 0.3, 0.09], [1 / 3] * 3, [0.97] + [0.01] * 3])
def test_after_any_number_of_tickets_each_source_has_had_its_share(shares):
    counts = [0] * len(shares)
    for ticket in range(2000):
        counts[turn(shares, counts, ticket)] += 1
        worst = max(abs(share * (ticket + 1) - count) for share, count in zip(shares, counts))
        assert worst <= max(1 - 1 / (2 * len(shares) - 2), 0) + 1e-6 if len(shares) > 1 else worst == 0


@pytest.mark.parametrize("sources", SETS.values(), ids=SETS)
def test_a_fresh_feed_goes_on_from_any_ticket(folder, sources):
    """In the middle of a block, at its end, across the ends of passes; also from the state of a feed that went on."""
    for rank, world_size, every in ((0, 1, 1), (1, 2, 4), (2, 3, 5)):
        wanted = twin(sources, rank, world_size, 60)
        source = feed(folder, sources, rank, world_size)
        assert names(islice(source, 50)) == wanted[:50]
        states = [json.loads(json.dumps(source.state(at))) for at in range(51)]
        assert max(len(json.dumps(state)) for state in states) < 2200
        resumed = feed(folder, sources, rank, world_size)
        for at in range(0, len(states), every):
            resumed.restore(states[at])
            assert names(islice(resumed, 7)) == wanted[at : at + 7], (world_size, at)
            found = [place(resumed.state(ticket)) for ticket in range(at, min(at + 7, 51))]
            assert found == [place(state) for state in states[at : at + 7]]


def test_what_was_released_is_forgotten_and_the_rest_is_not(folder):
    source = feed(folder, MIXED)
    wanted, tickets = twin(MIXED, 0, 1, 60), iter(source)
    list(islice(tickets, 45))
    source.release(40)
    assert len(source._chosen) == 5 and max(len(lane._blocks) for lane in source.lanes) <= 3
    with pytest.raises(DataError, match="ticket 39 is not among 40 to 45"):
        source.state(39)
    resumed = feed(folder, MIXED)
    resumed.restore(source.state(42))
    assert names(islice(resumed, 10)) == wanted[42:52]
    assert names(islice(tickets, 5)) == wanted[45:50] and names(islice(source, 5)) == wanted[50:55]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seed": 4}, "seed = 3, this run has 4"),
        ({"block": 7}, "block = 6, this run has 7"),
        ({"world_size": 2}, "world_size = 1, this run has 2"),
        ({"sources": [{**STREAMED, "weight": 2}, MIXED[1]]}, "sources = .*'weight': '3'.*, this run .*'weight': '2'"),
        ({"lines": 12}, "sizes = .*'4 files', '11 records'.*, this run has .*'12 records'"),
    ],
)
def test_a_place_in_other_data_is_refused(folder, tmp_path, change, words):
    state = feed(folder, MIXED).state(0)
    if lines := change.pop("lines", None):
        parquet_folder(tmp_path / "parquet", SIZES)
        folder = write_records(tmp_path / "lines", [record(f"s{n}") for n in range(lines)]).parent
    with pytest.raises(DataError, match=words):
        feed(folder, **{"sources": MIXED, **change}).restore(state)
    with pytest.raises(DataError, match="kind = 'map', this run has 'stream'"):
        feed(folder, MIXED).restore({"kind": "map"})


@pytest.mark.parametrize(
    "sources, words",
    [
        ([], "data.sources is empty"),
        ([STREAMED, {"path": "lines", "weight": 1}], "parquet has no `weight`: .* every source needs one"),
        ([MIXED[0], {"path": "lines"}], "lines has no `weight`"),
        ([{**STREAMED, "repeats": 2}], "`repeats` counts by epochs.* use `weight`"),
        ([MIXED[0], {"path": "lines", "weight": 1, "cap": 5}], "`cap` counts by epochs"),
        ([{**STREAMED, "path": "none"}], "none' does not exist"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(folder, sources, words):
    with pytest.raises(DataError, match=words):
        feed(folder, sources)


def test_a_rank_without_records_is_an_error(folder):
    few = {"path": "parquet", "streaming": True, "limit": 2}
    assert names(islice(feed(folder, [few], 1, 3), 3)) == [(n, n, 1) for n in range(3)]
    with pytest.raises(DataError, match="parquet holds no records for rank 2 of 3: 4 files, read with limit = 2"):
        next(iter(feed(folder, [few], 2, 3)))


class Held:
    """A stream of which every block but the first is read only once `gate` is open, by one thread at a time."""

    def __init__(self, stream):
        self.stream = stream
        self.reading = self.reads = 0
        self.started, self.gate = threading.Event(), threading.Event()
        self.fails_at: int | None = None

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def read(self, position, count):
        self.reading += 1
        assert self.reading == 1, "two threads at one stream"
        self.reads += 1
        if self.reads > 1:
            self.started.set()
            assert self.gate.wait(60)
        self.reading -= 1
        if self.reads == self.fails_at:
            raise DataError("the network is gone")
        return self.stream.read(position, count)


def held(folder: Path) -> tuple[StreamFeed, Held]:
    source = feed(folder, [STREAMED])
    (lane,) = source.lanes
    assert isinstance(lane, StreamLane)
    lane.stream = Held(lane.stream)
    return source, lane.stream


def test_the_next_block_is_read_while_one_is_handed_out(folder):
    source, stream = held(folder)
    tickets, wanted = iter(source), twin([STREAMED], 0, 1, 20)
    found = names(islice(tickets, 1))
    assert stream.started.wait(60)
    found += names(islice(tickets, BLOCK - 1))
    assert stream.reading == 1 and found == wanted[:BLOCK]
    stream.gate.set()
    assert names(islice(tickets, 20 - BLOCK)) == wanted[BLOCK:]


def test_an_error_of_the_reading_thread_arrives_and_stays(folder):
    source, stream = held(folder)
    stream.gate.set()
    stream.fails_at = 3
    found = []
    for _ in range(2):
        with pytest.raises(DataError, match="the network is gone"):
            found.extend(source)
    assert names(found) == twin([STREAMED], 0, 1, 2 * BLOCK)
    source.restore(source.state(2 * BLOCK))
    assert names(islice(source, 10)) == twin([STREAMED], 0, 1, 22)[12:], "once the network is back"


def test_going_back_waits_for_the_thread_that_reads(folder):
    source, stream = held(folder)
    state = source.state(0)
    next(iter(source))
    assert stream.started.wait(60)
    threading.Timer(0.1, stream.gate.set).start()
    source.restore(state)
    assert stream.reading == 0 and names(islice(source, 20)) == twin([STREAMED], 0, 1, 20)


def test_no_process_is_forked_while_a_block_is_read(folder):
    """It would hold the thread's locks for ever."""
    source, stream = held(folder)
    next(iter(source))
    assert stream.started.wait(60)
    threading.Timer(0.1, stream.gate.set).start()
    child = os.fork()
    if child == 0:
        os._exit(stream.reading)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_end_with_their_feed(folder):
    def threads() -> int:
        return sum(thread.name.startswith("stream") for thread in threading.enumerate())

    gc.collect()
    before = threads()
    source = feed(folder, BOTH)
    list(islice(source, 50))
    assert threads() == before + 2
    del source
    gc.collect()
    until = time.monotonic() + 5
    while threads() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threads() == before


KINDS = ("packed", "grouped", "padded")


def loader(folder: Path, kind: str, workers: int = 0, sources=None, report: Path | None = None) -> BatchLoader:
    data = TrainingDataset(None, tiny_processor(), 160, 0.5, report_path=report)
    source, measure = feed(folder, sources or MIXED), Measurer(data, workers)
    plan = {
        "packed": lambda: BufferedPlan(source, measure, PackedRows(160, 8), rows=2),
        "grouped": lambda: BufferedPlan(source, measure, LengthGroups(3, 12, 3)),
        "padded": lambda: BufferedPlan(source, unmeasured, LengthGroups(3, 3, 3)),
    }[kind]()
    return BatchLoader(plan, BatchWork(data, packed=kind == "packed"), workers)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_places_are_the_same_for_any_number_of_workers(folder, kind):
    count = 18
    source, whole, states = loader(folder, kind), [], []
    for batch in islice(source, count):
        whole.append(batch)
        states.append(json.loads(json.dumps(source.state_dict())))
    assert any("pixel_values" in batch for batch in whole)
    assert max(len(json.dumps(state)) for state in states) < 2500
    for at in (0, 1, 4, 9, 12):
        resumed = loader(folder, kind)
        resumed.load_state_dict(states[at])
        assert resumed.state_dict() == states[at]
        assert all(map(same, islice(resumed, 5), whole[at + 1 :])), at
        assert place(resumed.state_dict()) == place(states[at + 5])
    for workers in (1, 2):
        busy = loader(folder, kind, workers)
        assert all(map(same, islice(busy, 5), whole)) and place(busy.state_dict()) == place(states[4])
        busy.load_state_dict(states[11])
        assert all(map(same, islice(busy, 4), whole[12:])) and place(busy.state_dict()) == place(states[15])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_rows_are_left_out_and_written_down(tmp_path, kind, workers):
    import datasets

    rows = [{"id": f"s{n}", "question": f"Q{n}", "answer": f"A{n}"} for n in range(30)]
    rows[4]["question"], rows[9]["question"], rows[11]["answer"] = None, "Q" * 500, " "
    (tmp_path / "parquet").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "parquet/train.parquet")
    report = tmp_path / "out/bad_samples.jsonl"
    source = loader(tmp_path, kind, workers, [STREAMED], report)
    found = {name for batch in islice(source, 40) for name in batch["sample_ids"]} - {""}
    assert found == {f"s{n}" for n in range(30)} - {"s4", "s9", "s11"}
    bad = {line["where"]: line for line in map(json.loads, report.read_text().splitlines())}
    path = tmp_path / "parquet"
    wanted = {4: "schema", 9: "too_long", 11: "no_labels"}
    assert {where: line["reason"] for where, line in bad.items()} == {
        f"{path}[record {n}]": reason for n, reason in wanted.items()
    }
    assert source.dataset.report()["num_bad"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_is_measured_and_then_taken_counts_once(folder, kind):
    """What was measured ahead counts, what was only handed out after measuring does not count again: else the share
    of bad samples would look half as large as it is."""
    source = loader(folder, kind)
    taken = sum(len(set(batch["sample_ids"]) - {""}) for batch in islice(source, 12))
    state = source.state_dict()
    ahead = len(state["waiting"]) + sum(map(len, state["rows"]))
    assert source.dataset.bad.num_seen <= taken + ahead + 8 < 2 * taken
    assert source.dataset.bad.num_seen >= taken
