"""Streams: shares of ranks, exact positions in any file and row group, bad rows, broken files, the hub."""

import json
from pathlib import Path

import pytest

from tests.helpers.data_folders import record, write_records
from tests.helpers.stage_runs import PROBE, launch, losses, mixed_corpus, save_small_vlm
from tests.helpers.streamed_folders import number, parquet_folder, picture
from training.checkpoints import newest_checkpoint
from training.data.sources import DataError, open_source
from training.data.streams import HfStream, SequenceStream, open_stream
from training.environment import Machine
from training.recipe.loading import load_recipe
from training.stage import train_stage

datasets = pytest.importorskip("datasets", reason="optional package absent: datasets")
SIZES = (5, 1, 7, 3)
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The same records in three formats: parquet files, a saved dataset, JSON lines."""
    folder = tmp_path_factory.mktemp("streams")
    parquet_folder(folder / "parquet", SIZES)
    datasets.load_dataset(
        "parquet", data_files=str(folder / "parquet/*.parquet"), split="train", cache_dir=str(folder / "cache")
    ).save_to_disk(folder / "saved")
    write_records(folder / "lines", [record(f"s{n}", question=f"Q{n}") for n in range(TOTAL)])
    return folder


def passed(stream, step: int, position: dict | None = None) -> list[int]:
    """The numbers of the records from a position to the end of the pass, `step` at a time."""
    found, ended = [], False
    while not ended:
        samples, position, ended = stream.read(position, step)
        assert len(samples) <= step and (ended or len(samples) == step)
        found += map(number, samples)
    return found


def share(kind: str, rank: int, world_size: int, limit: int | None) -> list[int]:
    """The slow twin: rows of all files in order; whole files where they divide evenly, else every W-th record."""
    files, first = [], 0
    for size in SIZES:
        files.append(list(range(first, first + size)))
        first += size
    if kind == "parquet" and limit is None and len(files) % world_size == 0:
        return sum(files[rank::world_size], [])
    return sum(files, [])[:limit][rank::world_size]


@pytest.mark.parametrize("limit", [None, 9])
@pytest.mark.parametrize("kind", ["parquet", "saved", "lines"])
def test_shares_of_the_ranks_are_disjoint_and_complete(folder, kind, limit):
    for world_size in (1, 2, 3, 4):
        together = []
        for rank in range(world_size):
            stream = open_stream({"path": folder / kind, "limit": limit}, rank, world_size)
            assert type(stream) is (HfStream if kind == "parquet" else SequenceStream)
            wanted = share(kind, rank, world_size, limit)
            assert passed(stream, 4) == passed(stream, 1) == passed(stream, 100) == wanted, "one pass after another"
            together += wanted
        assert sorted(together) == list(range(limit or TOTAL))


@pytest.mark.parametrize("limit", [None, 9])
@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_reading_goes_on_from_any_record(folder, kind, limit):
    for rank, world_size in ((0, 1), (1, 2), (2, 3)):
        spec = {"path": folder / kind, "limit": limit}
        source, other = (open_stream(spec, rank, world_size) for _ in range(2))
        wanted, position = share(kind, rank, world_size, limit), None
        for at in range(len(wanted)):
            assert passed(other, 2, position) == wanted[at:], (world_size, at)
            samples, position, _ = source.read(position, 1)
            assert number(samples[0]) == wanted[at]
            position = json.loads(json.dumps(position))
            assert len(json.dumps(position)) < 700


@pytest.mark.parametrize("row_group", [300, 5000])
def test_reading_goes_on_in_the_middle_of_large_row_groups(tmp_path, row_group):
    """A position lies within a table of Arrow (at most a thousand rows), a row group and a file."""
    parquet_folder(tmp_path, (10, 2300, 4), row_group)
    stream = open_stream({"path": tmp_path})
    position = None
    for count in (9, 1, 1, 298, 2, 800, 150, 999, 49, 2, 2):
        first = 0 if position is None else position["record"]
        stream.read(position, count)  # as a run would that was killed: nothing of it is kept
        samples, position, _ = open_stream({"path": tmp_path}).read(position, count)
        assert list(map(number, samples)) == list(range(first, first + count))
        position = json.loads(json.dumps(position))
    assert passed(stream, 100, position) == [2313]


def test_streamed_samples_are_those_of_the_whole_dataset(tmp_path):
    parquet_folder(tmp_path / "d", (4, 3), pictures=True)
    options = {"path": tmp_path / "d", "name": "mine", "system": "Be brief."}
    samples, _, _ = open_stream(options).read(None, 100)
    whole = list(open_source(options))
    assert len(samples) == len(whole) == 7
    for streamed, read in zip(samples, whole):
        assert (streamed.id, streamed.source, streamed.meta) == (read.id, read.source, read.meta)
        assert streamed.resolved_messages() == read.resolved_messages()
    assert samples[1].messages[1]["content"][0]["image"]["bytes"] == picture(1)["bytes"], "undecoded"
    assert samples[5].origin == f"{tmp_path / 'd'}[record 5]"
    second = open_stream({"path": tmp_path / "d"}, 1, 2).read(None, 1)[0][0]
    assert second.id == "d:1.0" and second.origin == f"{tmp_path / 'd'}[share 1 of 2, record 0]"


def test_rows_that_are_no_records_become_bad_samples(tmp_path):
    rows = [{"question": f"Q{n}" if n != 2 else None, "answer": "a"} for n in range(4)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "d/train.parquet")
    write_records(tmp_path / "lines", [record("s0"), "nonsense", record("s2")])
    for path, bad, size in (("d", 2, 4), ("lines", 1, 3)):
        samples, _, ended = open_stream({"path": tmp_path / path}).read(None, 10)
        assert ended and [place for place, one in enumerate(samples) if one.problem] == [bad] and len(samples) == size
        assert samples[bad].origin.startswith(str(tmp_path / path)) and samples[bad].problem.reason


def test_a_broken_file_is_an_error_and_never_the_end_of_the_data(tmp_path):
    parquet_folder(tmp_path, (5, 4))
    broken = tmp_path / "train-00001.parquet"
    broken.write_bytes(broken.read_bytes()[:-30])
    stream = open_stream({"path": tmp_path})
    samples, position, _ = stream.read(None, 5)
    for _ in range(2):
        with pytest.raises(DataError, match=r"(?s)reading the stream failed behind record 5: .*last checkpoint"):
            stream.read(position, 5)


def test_held_out_samples_are_the_first_of_a_stream(folder):
    head = open_source({"path": folder / "parquet", "streaming": True, "limit": 6})
    assert [number(sample) for sample in head] == list(range(6)) and head.where(3).endswith("[record 3]")
    with pytest.raises(DataError, match="is streamed, so its size is unknown: set `limit:`"):
        open_source({"path": folder / "parquet", "streaming": True})
    with pytest.raises(IndexError):
        head[6]


def test_what_is_wrong_with_a_streamed_folder_is_said(tmp_path, folder):
    with pytest.raises(DataError, match="does not exist"):
        open_stream({"path": tmp_path / "none"})
    with pytest.raises(DataError, match="no parquet file whose name begins with the split 'val'; there are train"):
        open_stream({"path": folder / "parquet", "split": "val"})
    (tmp_path / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as a Hugging Face dataset"):
        open_stream({"path": tmp_path})


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """`hf://org/name` finds a folder in the current one, as `load_dataset` does; the hub is out of reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "org/name"


def test_a_stream_from_the_hub(hub, monkeypatch):
    parquet_folder(hub / "data", SIZES)
    for world_size in (1, 2, 3):
        found = [passed(open_stream({"path": "hf://org/name"}, rank, world_size), 3) for rank in range(world_size)]
        assert found == [share("parquet", rank, world_size, None) for rank in range(world_size)]
    sample = open_stream({"path": "hf://org/name"}).read(None, 1)[0][0]
    assert sample.source == "org/name" and sample.origin == "hf://org/name[record 0]"
    calls, load = [], datasets.load_dataset
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, subset, revision, **more: calls.append((name, subset, revision, more)) or load(name, **more),
    )
    open_stream({"path": "hf://org/name@v1.0", "subset": "small", "split": "train"})
    assert calls == [("org/name", "small", "v1.0", {"split": "train", "streaming": True})]
    with pytest.raises(DataError, match="(?s)hf://org/other cannot be read.*HF_HUB_OFFLINE is set"):
        open_stream({"path": "hf://org/other"})
    with pytest.raises(DataError, match="it has the splits train: choose one with `split:`, got 'val'"):
        open_stream({"path": "hf://org/name", "split": "val"})


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_stream_whose_columns_are_not_known_before_it_is_read(hub, suffix):
    """... has nothing that would have to be left undecoded."""
    rows = [json.dumps({"question": f"Q{n}", "answer": "a"}) if suffix == "jsonl" else f"Q{n},a" for n in range(9)]
    header = ["question,answer"] if suffix == "csv" else []
    write_records(hub, header + rows[:5], f"train-0.{suffix}")
    write_records(hub, header + rows[5:], f"train-1.{suffix}")
    stream = open_stream({"path": "hf://org/name"})
    assert passed(stream, 4) == list(range(9))
    _, position, _ = stream.read(None, 6)
    again = open_stream({"path": "hf://org/name"})
    assert passed(again, 4, json.loads(json.dumps(position))) == [6, 7, 8]


def test_a_stage_killed_between_two_checkpoints_goes_on_exactly(tmp_path):
    """kill -9 while two workers read ahead, then on without any: the losses of a run that nothing interrupted. The
    longer runs, with LoRA and several processes: tests/check/resume_numbers.py."""
    save_small_vlm(tmp_path / "stage0")
    parquet_folder(tmp_path / "data/stream", SIZES, pictures=True)
    mixed_corpus(tmp_path / "data/mixed", 12)
    sources = "[{path: stream, streaming: true, weight: 2}, {path: mixed, weight: 1}]"

    def words(out: str, *more: str) -> list[str]:
        return [
            f"model={tmp_path / 'stage0'}", f"output_dir={tmp_path / out}", f"data.root={tmp_path / 'data'}",
            f"data.sources={sources}", "max_length=128", "stream_block=6", "max_steps=10", "per_device_batch_size=2",
            "save_steps=3", "log_steps=1", "learning_rate=1e-3", "watch.report_to=[]", *more,
        ]  # fmt: skip

    machine = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
    train_stage(load_recipe(None, words("whole")), machine)
    killed = launch(PROBE, words("killed", "num_workers=2"), 0, STAGE_PROBE_KILL="0:5", STAGE_PROBE_OUT=str(tmp_path))
    assert killed.returncode == -9 and newest_checkpoint(tmp_path / "killed").name == "checkpoint-3", killed.stderr
    train_stage(load_recipe(None, words("killed", "resume=true")), machine)
    whole, found = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert sorted(found) == list(range(1, 11)) and found == pytest.approx(whole, rel=1e-6)
