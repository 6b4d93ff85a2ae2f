"""Media paths: relative to the data folder, and never out of it."""

import os

import pytest

from tests.helpers.data_folders import record, write_image, write_records
from training.data.sources import open_source
from vlm.errors import SampleError


@pytest.fixture
def secret(tmp_path):
    return write_image(tmp_path / "outside" / "secret.png")


def only(tmp_path, reference, **options):
    write_records(tmp_path / "data", [record("s0", images=(reference,))])
    return open_source({"path": tmp_path / "data", **options})[0]


def test_relative_and_absolute_paths_inside(tmp_path):
    path = write_image(tmp_path / "data/images/a.png")
    for reference in ("images/a.png", "./images/../images/a.png", str(path)):
        items = only(tmp_path, reference).resolved_messages()[0]["content"]
        assert items[0] == {"type": "image", "image": str(path)} and items[1]["type"] == "text"


@pytest.mark.parametrize("how", ["dots", "absolute", "link", "linked_folder", "prefix"])
def test_paths_that_leave_the_folder(tmp_path, secret, how):
    (tmp_path / "data").mkdir()
    if how == "link":
        os.symlink(secret, tmp_path / "data/a.png")
    if how == "linked_folder":
        os.symlink(secret.parent, tmp_path / "data/sub")
    if how == "prefix":
        write_image(tmp_path / "data2/secret.png")
    reference = {
        "dots": "../outside/secret.png",
        "absolute": str(secret),
        "link": "a.png",
        "linked_folder": "sub/secret.png",
        "prefix": "../data2/secret.png",
    }[how]
    sample = only(tmp_path, reference)
    with pytest.raises(SampleError, match="leaves the data folder") as error:
        sample.resolved_messages()
    assert error.value.reason == "outside_folder" and error.value.sample_id == "s0"
    assert "records.jsonl:1" in str(error.value)


def test_media_root_is_the_folder_then(tmp_path, secret):
    sample = only(tmp_path, "secret.png", media_root=str(secret.parent))
    assert sample.resolved_messages()[0]["content"][0]["image"] == str(secret)


@pytest.mark.parametrize(
    "reference, reason",
    [("a.png", "missing_file"), ("https://x.org/a.png", "remote_media"), ("file:///etc/passwd", "remote_media"),
     ("data:image/png;base64,AAAA", "remote_media"), ("a\0.png", "missing_file"), (".", "missing_file")],
)  # fmt: skip
def test_other_bad_references(tmp_path, reference, reason):
    with pytest.raises(SampleError) as error:
        only(tmp_path, reference).resolved_messages()
    assert error.value.reason == reason
