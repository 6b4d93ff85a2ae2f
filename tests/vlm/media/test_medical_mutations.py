"""A few damaged files of each kind: refused in words or opened, never a crash; `make check` does it 2,000 times."""

from pathlib import Path

import pytest

from tests.helpers.medical_files import body, new_dataset, save, write_enhanced, write_nifti
from tests.helpers.mutations import KINDS, mutate, read_medical, survive

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
pytest.importorskip("nibabel", reason="optional package absent: nibabel")


def sources(folder: Path) -> list[Path]:
    plain = save(
        new_dataset(folder / "a.dcm", body((16, 12, 1))[..., 0], WindowCenter=40, WindowWidth=80), folder / "a.dcm"
    )
    enhanced = write_enhanced(folder / "b.dcm", body())
    return [plain, enhanced, write_nifti(folder / "c.nii", body()), write_nifti(folder / "d.nii.gz", body())]


def test_damaged_files_are_refused_or_opened(tmp_path: Path):
    cases = []
    for path in sources(tmp_path):
        data = path.read_bytes()
        cases += [(f"{seed}_{path.name}", mutate(data, seed)[1]) for seed in range(48)]
    work = tmp_path / "work"
    work.mkdir()
    found = survive(cases, read_medical, work)
    assert found.crashed == [] and found.slowest < 5
    assert found.opened > 20 and sum(found.refused.values()) > 20, found.refused


def test_mutations_are_what_they_say(tmp_path: Path):
    data = bytes(range(256)) * 20
    made = [mutate(data, seed) for seed in range(60)]
    assert {kind for kind, _ in made} == set(KINDS) and made == [mutate(data, seed) for seed in range(60)]
    assert sum(changed == data for _, changed in made) <= 3
    (tmp_path / "w").mkdir()

    def broken(path: Path) -> None:
        raise KeyError(path.name)

    assert survive([("x", b"1")], broken, tmp_path / "w").crashed[0][1] == "KeyError"
