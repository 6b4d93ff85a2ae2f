"""Where benchmarks come from: a local copy, the hub's cache without a network, a download of the files of one split."""

import time
from types import SimpleNamespace

import pytest

from eval.sources import Source, unpack
from tests.helpers.mini_benchmarks import HubCopy, write_mini

REPO, COMMIT = "lmms-lab-encoder/DocVQA", "0123456789abcdef0123456789abcdef01234567"
SOURCE = Source(REPO, split="validation", config="DocVQA")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache with a snapshot of the mini copy, as `hf download` leaves it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_mini("docvqa", tmp_path / "made")
    folder = tmp_path / "hub" / "datasets--lmms-lab-encoder--DocVQA"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    (folder / "snapshots").mkdir()
    (tmp_path / "made" / REPO).rename(folder / "snapshots" / COMMIT)
    return folder / "snapshots" / COMMIT


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("limit, number", [(None, 4), (2, 2)])
def test_what_is_in_the_hubs_cache_is_read_without_a_network(cache, tmp_path, limit, number):
    before = files(tmp_path)
    rows = list(SOURCE.rows(tmp_path / "nothing", "docvqa", limit))
    assert [row["questionId"] for row in rows] == [str(49153 + place) for place in range(number)]
    assert set(rows[0]["image"]) == {"bytes", "path"} and rows[0]["answers"] == ["0.28"]
    assert files(tmp_path) == before, "nothing is written: no second copy of the tables"


def test_only_the_files_of_the_split_are_fetched(cache, tmp_path, monkeypatch):
    names = [f"DocVQA/validation-0000{shard}-of-00002.parquet" for shard in (0, 1)]
    urls = {"validation": [f"hf://datasets/{REPO}@{COMMIT}/{name}" for name in names]}
    builder = SimpleNamespace(config=SimpleNamespace(data_files=urls))
    asked = []

    def fetch(repo, **options):
        asked.append((repo, options["allow_patterns"]))
        return str(cache)

    monkeypatch.setattr("datasets.load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert len(list(SOURCE.rows(tmp_path / "nothing", "docvqa"))) == 4
    assert asked == [(REPO, ["README.md", *names])]


def test_what_is_nowhere_is_told_with_its_cause_and_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError) as told:
        list(SOURCE.rows(tmp_path, "docvqa"))
    assert "snapshot" not in str(told.value), "the cause is the missing network, not the cache that was tried after it"
    assert f"hf download {REPO} --repo-type dataset --local-dir {tmp_path / REPO}" in str(told.value)


def test_a_copy_may_lack_what_is_not_asked_for(tmp_path):
    """A partial download still has the README that lists all splits and configurations."""
    write_mini("docvqa", tmp_path)
    copy = HubCopy(tmp_path, REPO)
    copy.configs["DocVQA"] = {"test": "DocVQA/test-*", "validation": "DocVQA/validation-*"}
    copy.data_files("validation", "InfographicVQA/validation-*", config="InfographicVQA")
    assert len(list(SOURCE.rows(tmp_path, "docvqa"))) == 4
    (tmp_path / REPO / "README.md").unlink()
    assert len(list(SOURCE.rows(tmp_path, "docvqa"))) == 4


@pytest.mark.parametrize("name", [REPO, "lmms-lab/DocVQA", "DocVQA", "docvqa"])
def test_a_copy_is_found_under_each_of_its_names(tmp_path, name):
    source = Source(REPO, split="validation", config="DocVQA", formerly=("lmms-lab/DocVQA",))
    (tmp_path / name).mkdir(parents=True)
    assert source.local_folder(tmp_path, "docvqa") == tmp_path / name
    assert source.local_folder(tmp_path / "other", "docvqa") is None


def test_processes_that_unpack_one_archive_do_it_once(tmp_path, monkeypatch):
    """The second would write files again that the first is reading already."""
    import zipfile
    from concurrent.futures import ThreadPoolExecutor

    with zipfile.ZipFile(tmp_path / "imgs.zip", "w") as archive:
        archive.writestr("a.png", b"picture")
    times, extract = [], zipfile.ZipFile.extractall

    def slowly(self, target):
        times.append(target)
        time.sleep(0.2)
        extract(self, target)

    monkeypatch.setattr(zipfile.ZipFile, "extractall", slowly)
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: unpack(tmp_path / "imgs.zip", tmp_path / "cache"), range(3)))
    assert len(times) == 1 and {(folder / "a.png").read_bytes() for folder in folders} == {b"picture"}


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "imgs.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="imgs.zip: no readable zip archive"):
        unpack(tmp_path / "imgs.zip", tmp_path / "cache")


def test_data_that_is_damaged_in_the_middle_is_named(tmp_path):
    """Its schema can be read, so that it opens; the library's own words name neither task nor file."""
    write_mini("docvqa", tmp_path)
    table = sorted((tmp_path / REPO).rglob("*.parquet"))[0]
    content = bytearray(table.read_bytes())
    content[300:500] = bytes(200)
    table.write_bytes(content)
    with pytest.raises(OSError, match=rf"task docvqa: the data of {tmp_path / REPO} cannot be read after row 0"):
        list(SOURCE.rows(tmp_path, "docvqa"))
