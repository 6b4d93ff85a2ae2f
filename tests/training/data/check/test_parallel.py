"""Worker processes: the same report as without them, a crash is a finding, Ctrl-C leaves what was found."""

import json
import os

import pytest

from tests.helpers.data_folders import record, write_records
from tests.helpers.tiny_processor import tiny_processor
from tests.training.data.check.receipts import receipts
from training.data.check import Job, check
from training.data.check.parallel import CHUNK, run_over
from training.data.check.sample import SampleCheck
from training.data.sources.json_records import JsonSource


def as_json(report, path):
    report.write_json(path)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Good and bad records, pictures that come again, and held-out data."""
    folder = receipts(tmp_path_factory.mktemp("mixed") / "d", range(30))
    rows = (folder / "records.jsonl").read_text().splitlines()
    rows[7:7] = ["{broken", json.dumps(record("s3")), json.dumps(record("gone", images=("images/none.jpg",)))]
    (folder / "images/9.jpg").write_bytes((folder / "images/9.jpg").read_bytes()[:3000])
    write_records(folder, [*rows, json.dumps(record("long", "Q" * 900)), rows[20]])
    held = receipts(folder.parent / "held", range(28, 33), "h", quality=60)
    return [Job(folder, max_length=400), Job(held, "eval", max_length=400)]


def test_processes_change_nothing(mixed, tmp_path):
    one, three = (as_json(check(mixed, tiny_processor(), workers=n, looks=True), tmp_path / f"{n}") for n in (0, 3))
    assert one == three
    assert one["reasons"] == {"duplicate_id": 2, "in_training": 2, "bad_json": 1, "missing_file": 1,
                              "truncated_image": 1, "too_long": 1}  # fmt: skip
    assert one["sources"][0]["tokens"]["max"] > 900  # what is too long is counted too
    assert one["duplicates"]["repeated_conversations"] == 1


class Deadly:
    """Ends its process at some records."""

    def __init__(self, *deadly: int):
        self.deadly = deadly

    def __call__(self, index: int) -> int:
        if index in self.deadly:
            os._exit(3)
        return 10 * index


@pytest.mark.parametrize("deadly", [(), (0,), (37,), (5, 6, 60), (99,)])
def test_a_crash_costs_its_record(deadly):
    found = list(run_over(Deadly(*deadly), 100, 2, lambda index: f"crash {index}"))
    assert found == [(i, f"crash {i}" if i in deadly else 10 * i) for i in range(100)]


def test_a_crash_is_a_finding(tmp_path, monkeypatch):
    folder = write_records(tmp_path / "d", [record(f"r{i}") for i in range(2 * CHUNK)])
    whole = SampleCheck.__call__

    def crashing(self, index):
        return os._exit(3) if index == 20 else whole(self, index)

    monkeypatch.setattr(SampleCheck, "__call__", crashing)
    report = check([folder], workers=2)
    (problem,) = report.problems
    assert problem.reason == "crash" and problem.where == f"{folder}/records.jsonl:21"
    assert report.sources[0].samples == 2 * CHUNK and report.sources[0].bad == 1


def test_results_wait_in_bounded_number():
    """A generator that is not read on does not run through the whole source."""
    results = run_over(Deadly(9_999), 10_000, 2, lambda index: "crash")
    assert [next(results) for _ in range(3)] == [(0, 0), (1, 10), (2, 20)]
    results.close()


class Stops:
    """A progress bar at which somebody presses Ctrl-C."""

    def __init__(self, **_):
        self.count, self.closed = 0, False

    def update(self, n):
        self.count += n
        if self.count == 20:
            raise KeyboardInterrupt

    def close(self):
        self.closed = True


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_check_tells_what_it_found(mixed, tmp_path, workers):
    report = check(mixed, tiny_processor(), workers=workers, progress=Stops, looks=True)
    found = as_json(report, tmp_path / "r.json")
    assert found["interrupted"] and not found["ok"] and [one["samples"] for one in found["sources"]] == [20]
    assert set(found["reasons"]) == {"bad_json", "duplicate_id", "missing_file", "truncated_image"}


def test_errors_of_the_machine_are_not_the_samples(tmp_path, monkeypatch):
    """A package that is missing ends the check instead of filling the report."""

    def missing(self, index):
        raise ImportError("reading X needs package x")

    folder = write_records(tmp_path / "d", [record(f"r{i}") for i in range(3)])
    monkeypatch.setattr(JsonSource, "__getitem__", missing)
    for workers in (0, 1):
        with pytest.raises(ImportError, match="package x"):
            check([folder], workers=workers)
