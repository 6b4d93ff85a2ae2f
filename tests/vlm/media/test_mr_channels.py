"""MRI sequences as named channels: four volumes stay four, named by the header's words or by the user."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.medical_files import affine_of, body, write_nifti, write_series
from vlm.errors import SampleError
from vlm.media import read_channels
from vlm.media.mr_sequence import channel_name, sequence_in
from vlm.media.volumes import stack_channels

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
NAMES = ("t1ce", "t1", "t2", "flair")
DESCRIPTIONS = {"t1": "Ax T1 SE pre", "t1ce": "Ax T1 post Gd", "t2": "AX_T2_FSE", "flair": "Ax T2 FLAIR"}
VOLUMES = {name: body(seed=i) for i, name in enumerate(NAMES)}


def write_all(folder: Path, descriptions=None, **tags) -> Path:
    for name, words in (descriptions or DESCRIPTIONS).items():
        write_series(folder, VOLUMES[name], prefix=name, Modality="MR", SeriesDescription=words, **tags)
    return folder


def refused(reason: str, *args, **options) -> str:
    with pytest.raises(SampleError) as caught:
        read_channels(*args, **options)
    assert caught.value.reason == reason, caught.value
    return caught.value.message


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Ax T1", "t1"), ("t1_mprage_sag_p2", "t1"), ("T1 FLAIR sag", "t1"), ("AX T1 +C", "t1ce"),
        ("T1 post contrast", "t1ce"), ("t1ce", "t1ce"), ("T1GD", "t1ce"), ("T1 without contrast", "t1"),
        ("T1 pre contrast", "t1"), ("AX T2 FSE", "t2"), ("T2 FLAIR", "flair"), ("FLAIR", "flair"),
        ("t2_tirm_dark-fluid", "flair"), ("T1 and T2", ""), ("localizer", ""), ("ep2d_diff_3scan_ADC", ""),
        ("ADC map", "adc"), ("DWI b1000", "dwi"), ("T10 spine", ""), ("", ""),
    ],
)  # fmt: skip
def test_sequences_by_words(words: str, name: str):
    assert sequence_in(words.replace("_", " ").replace("-", " ")) == name


def test_contrast_agent_and_aliases():
    assert sequence_in("Ax T1", has_agent=True) == "t1ce" and sequence_in("Ax T1 pre", has_agent=True) == "t1"
    assert [channel_name(word) for word in ("T1c", "T1-CE", "t1gd", "FLAIR", "T2w")] == [
        "t1ce",
        "t1ce",
        "t1ce",
        "flair",
        "t2",
    ]


def test_four_series_of_a_folder_stay_four(tmp_path: Path):
    """What writes one sequence into all four channels (VILA-M3's slice extraction did) fails here."""
    found = read_channels(write_all(tmp_path))
    assert list(found) == list(NAMES)
    stacked = stack_channels(found, NAMES)
    assert stacked.shape == (4, 6, 8, 5)
    for index, name in enumerate(NAMES):
        assert np.array_equal(stacked[index], VOLUMES[name]) and found[name].sequence == name
    assert np.array_equal(stack_channels(found, ("flair", "T1c"))[1], VOLUMES["t1ce"])
    assert len({plane.tobytes() for plane in stacked}) == 4


def test_by_explicit_paths_and_4d(tmp_path: Path):
    pytest.importorskip("nibabel", reason="optional package absent: nibabel")
    paths = {name: write_nifti(tmp_path / f"{i}.nii.gz", VOLUMES[name]) for i, name in enumerate(NAMES)}
    found = read_channels({"FLAIR": paths["flair"], "T1": paths["t1"], "t2": paths["t2"], "T1c": paths["t1ce"]})
    assert list(found) == list(NAMES) and all(np.array_equal(found[name].array, VOLUMES[name]) for name in NAMES)
    four = write_nifti(tmp_path / "four.nii.gz", np.stack([VOLUMES[name] for name in NAMES], -1))
    assert all(np.array_equal(volume.array, VOLUMES[name]) for name, volume in read_channels(four).items())
    assert "same voxels" in refused("same_channel", {**paths, "t2": paths["t1"]})
    write_nifti(tmp_path / "copy.nii", VOLUMES["t1"])
    assert "channels t1 and t2" in refused("same_channel", {**paths, "t2": tmp_path / "copy.nii"})
    moved = write_nifti(tmp_path / "moved.nii", VOLUMES["t2"], affine_of(origin=(0, 0, 0)))
    assert "other place or spacing" in refused("mixed_grids", {**paths, "t2": moved})
    small = write_nifti(tmp_path / "small.nii", VOLUMES["t2"][:3])
    assert "6 x 8 x 5 and 3 x 8 x 5" in refused("mixed_grids", {**paths, "t2": small})
    del paths["flair"]
    assert "missing channels: flair" in refused("missing_channel", paths)


def test_a_folder_that_does_not_say(tmp_path: Path):
    silent = write_all(tmp_path / "a", {**DESCRIPTIONS, "flair": "series 7"})
    message = refused("missing_channel", silent)
    assert "no series for channel flair" in message and "MRI (t1ce), 5 axial" in message and "{'t1': PATH" in message
    twice = write_all(tmp_path / "b", {**DESCRIPTIONS, "flair": "T2 again"})
    assert "2 series for channel t2" in refused("double_channel", twice)
