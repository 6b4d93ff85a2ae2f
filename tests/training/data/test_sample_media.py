"""Media given as objects in a record stay below the data folder like media given as paths."""

import pytest

from training.data.sample import Sample
from vlm.errors import SampleError


def sample(tmp_path) -> Sample:
    return Sample("s", "made", [], base_dir=tmp_path)


def test_rows_with_paths_may_not_leave_the_folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "own.png").write_bytes(b"x")
    one = sample(folder)
    assert one.resolve({"path": "own.png", "bytes": None}) == str((folder / "own.png").resolve())
    assert one.resolve({"path": "elsewhere.png", "bytes": b"abc"}) == b"abc"
    for wrong, reason in (
        ({"path": str(tmp_path / "secret.png")}, "outside_folder"),
        ({"path": "../secret.png", "bytes": None}, "outside_folder"),
        ({"bytes": str(tmp_path / "secret.png")}, "schema"),
        ({}, "schema"),
    ):
        with pytest.raises(SampleError) as error:
            one.resolve(wrong)
        assert error.value.reason == reason
