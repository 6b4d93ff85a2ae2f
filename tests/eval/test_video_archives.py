"""Files out of a benchmark's archives: one at a time, once, never outside their folder, whatever is in the archive."""

import io
import logging
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from eval.sources import DataPlaces, Source
from eval.video_archives import VIDEO_SUFFIXES, ArchivedFiles, InPieces
from tests.helpers.mini_benchmarks._clips import tarred, zipped

SOURCE = Source("somebody/Videos", split="test")


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "data" / SOURCE.repo
    folder.mkdir(parents=True)
    return folder


def opened(copy: Path, *patterns: str, cache: str = "cache", suffixes=VIDEO_SUFFIXES) -> ArchivedFiles:
    places = DataPlaces(copy.parents[1], copy.parents[2] / cache)
    return ArchivedFiles(SOURCE, places, "mine", patterns or ("*.zip", "*.tar*"), suffixes)


def test_loose_files_come_before_archives_and_nothing_is_written(copy, tmp_path):
    (copy / "data").mkdir()
    (copy / "data/a.mp4").write_bytes(b"loose")
    (copy / "v1.zip").write_bytes(zipped({"data/a.mp4": b"packed"}))
    files = opened(copy)
    assert Path(files.find("a")).read_bytes() == Path(files.find("a.mp4")).read_bytes() == b"loose"
    assert not (tmp_path / "cache").exists()


def test_a_file_is_taken_out_once_into_the_cache(copy, tmp_path):
    archive = copy / "v1.zip"
    archive.write_bytes(zipped({"data/": "", "data/a.mp4": b"A" * 3_000_000, "data/b.MP4": b"B", "data/c.txt": b"C"}))
    before = sorted(copy.iterdir())
    files = opened(copy)
    path = Path(files.find("a"))
    assert path == tmp_path / "cache/unpacked/somebody/Videos/v1.zip/data/a.mp4"
    assert path.read_bytes() == b"A" * 3_000_000 and Path(files.find("b")).name == "b.MP4"
    assert sorted(copy.iterdir()) == before, "the copy may be read-only"
    changed = path.stat().st_mtime_ns
    assert opened(copy).find("a.mp4") == str(path) and path.stat().st_mtime_ns == changed
    path.write_bytes(b"half")  # what a full disk or a kill leaves behind
    assert Path(opened(copy).find("a")).stat().st_size == 3_000_000
    with pytest.raises(FileNotFoundError, match="c.mp4: no such file in .*somebody/Videos or its archives"):
        files.find("c")


def test_case_and_dots_of_names_matter(copy):
    """Names of videos are YouTube's: `abC` and `abc` are two videos, a dot is no suffix."""
    (copy / "v.zip").write_bytes(zipped({"abC.mp4": b"1", "abc.mp4": b"2", "-a.b_c.mkv": b"3"}))
    files = opened(copy)
    contents = [Path(files.find(name)).read_bytes() for name in ("abC", "abc", "-a.b_c")]
    assert contents == [b"1", b"2", b"3"]


def test_the_folder_decides_between_equal_names(copy):
    (copy / "v.zip").write_bytes(zipped({"one/a.mp4": b"1", "two/a.mp4": b"2"}))
    files = opened(copy)
    assert Path(files.find("two/a.mp4")).read_bytes() == b"2" and Path(files.find("a")).read_bytes() == b"1"
    assert Path(files.find("elsewhere/a.mp4")).read_bytes() == b"1"


def test_later_archives_are_opened_when_they_are_needed(copy, caplog):
    (copy / "v1.zip").write_bytes(zipped({"a.mp4": b"1"}))
    (copy / "v2.zip").write_bytes(b"no archive")
    files = opened(copy)
    assert Path(files.find("a")).is_file()
    for _ in range(2):
        with pytest.raises(ValueError, match="v2.zip: no readable zip archive"):
            files.find("b")


@pytest.mark.parametrize("name", ["../a.mp4", "data/../../../a.mp4", "/tmp/a.mp4", "..\\a.mp4"])
def test_names_that_leave_the_folder_are_refused(copy, tmp_path, name):
    (copy / "v.zip").write_bytes(zipped({"fine.mp4": b"1", name: b"evil"}))
    with pytest.raises(ValueError, match="v.zip: .*a.mp4 would leave the folder"):
        opened(copy).find("fine")
    (copy / "v.zip").unlink()
    (copy / "v.tar").write_bytes(tarred({"fine.mp4": b"1", name: b"evil"}))
    with pytest.raises(ValueError, match="v.tar: .*a.mp4 would leave the folder"):
        opened(copy).find("fine")
    assert not list(tmp_path.rglob("a.mp4")) and not list(tmp_path.rglob("fine.mp4"))


def test_links_in_a_tar_are_no_files(copy, tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "soft.mp4"), (tarfile.LNKTYPE, "hard.mp4")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
    (copy / "v.tar").write_bytes(stream.getvalue())
    for name in ("soft", "hard"):
        with pytest.raises(FileNotFoundError, match=f"{name}.mp4: no such file"):
            opened(copy).find(name)


def test_damage_inside_an_archive_is_named(copy):
    whole = bytearray(zipped({"a.mp4": bytes(range(256)) * 40, "b.mp4": b"fine"}))
    whole[2000:2010] = b"0123456789"
    (copy / "v.zip").write_bytes(whole)
    files = opened(copy)
    with pytest.raises(ValueError, match="v.zip: a.mp4 cannot be taken out: .*CRC"):
        files.find("a")
    assert Path(files.find("b")).read_bytes() == b"fine"


def test_absurd_sizes_are_refused(copy, monkeypatch):
    monkeypatch.setattr("eval.video_archives.MAX_UNPACKED", 1000)
    with zipfile.ZipFile(copy / "v.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mp4", bytes(2000))
    with pytest.raises(ValueError, match="bomb.mp4 unpacks to more than 1,000 bytes"):
        opened(copy).find("bomb")


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_a_tar_in_pieces_is_one_archive(copy, pieces):
    contents = {f"videos/{name}.mp4": bytes([ord(name)]) * size for name, size in (("a", 5), ("b", 4000), ("c", 513))}
    whole = tarred(contents)
    step = -(-len(whole) // pieces)
    for number in range(pieces):
        part = whole[number * step : (number + 1) * step]
        (copy / f"videos.tar.part.a{chr(97 + number)}").write_bytes(part)
    files = opened(copy, "videos.tar.part.*")
    for name, content in contents.items():
        assert Path(files.find(Path(name).name)).read_bytes() == content
    assert "unpacked/somebody/Videos/videos.tar/videos/a.mp4" in files.find("a")


def test_a_missing_piece_is_named(copy):
    whole = tarred({"videos/a.mp4": b"1" * 6000})
    (copy / "videos.tar.part.aa").write_bytes(whole[:3000])
    with pytest.raises((ValueError, FileNotFoundError), match="videos.tar.part.aa|is a piece missing"):
        opened(copy, "videos.tar.part.*").find("a")


def test_pieces_read_like_the_whole(tmp_path):
    """The slow twin is the whole in memory: every seek and read gives the same bytes."""
    whole = bytes(range(256)) * 5
    paths = []
    for number, (start, end) in enumerate([(0, 1), (1, 700), (700, 700), (700, 1280)]):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(whole[start:end])
    with InPieces(paths) as pieces:
        twin = io.BytesIO(whole)
        for offset, whence, size in ((0, 0, 5), (-3, 2, 9), (698, 0, 4), (10, 1, 600), (5000, 0, 3), (0, 0, -1)):
            assert pieces.seek(offset, whence) == twin.seek(offset, whence)
            assert pieces.read(size) == twin.read(size) and pieces.tell() == twin.tell()


def test_threads_that_want_one_file_get_a_whole_one(copy):
    (copy / "v.zip").write_bytes(zipped({"a.mp4": b"A" * 5_000_000}))
    sizes: list[int] = []
    readers = [opened(copy) for _ in range(4)]
    threads = [threading.Thread(target=lambda f=f: sizes.append(Path(f.find("a")).stat().st_size)) for f in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [5_000_000] * 4


def test_from_the_hub_archives_are_fetched_one_by_one(tmp_path, monkeypatch, caplog):
    hub = tmp_path / "hub"
    hub.mkdir()
    for number in (1, 2, 3):
        (hub / f"v{number}.zip").write_bytes(zipped({f"{number}.mp4": b"1"}))
    fetched: list[list[str]] = []

    def snapshot_download(repo, repo_type, revision, allow_patterns):
        fetched.append(allow_patterns)
        return str(hub)

    names = ["README.md", "v1.zip", "v2.zip", "v3.zip"]
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: names)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    files = ArchivedFiles(SOURCE, DataPlaces(tmp_path / "none", tmp_path / "cache"), "mine", ("v*.zip",), (".mp4",))
    assert fetched == []
    with caplog.at_level(logging.INFO):
        assert Path(files.find("2")).is_file() and fetched == [["v1.zip"], ["v2.zip"]]
    with pytest.raises(FileNotFoundError, match="4.mp4: no such file in somebody/Videos"):
        files.find("4")


def test_neither_files_nor_archives(copy):
    with pytest.raises(
        FileNotFoundError, match="task mine: .* has no .srt files and no archives of them .subtitle.zip."
    ):
        opened(copy, "subtitle.zip", suffixes=(".srt",))
