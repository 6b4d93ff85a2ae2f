"""`radio-vlm chat --volume`: a series folder and a NIfTI file reach the model; what is silent is asked for."""

import pytest

from tests.helpers.medical_files import body, write_nifti, write_series
from tests.helpers.tiny_processor import tiny_processor
from tests.helpers.tiny_vlm import build_tiny
from vlm.cli.main import main
from vlm.cli.media_items import volume_items

pytest.importorskip("pydicom", reason="optional package absent: pydicom")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    for part in build_tiny():
        part.save_pretrained(folder / "model")
    write_series(folder / "ct", body((32, 32, 6)))
    return folder


def test_slices_of_a_folder_and_of_nifti(folder, capsys):
    pytest.importorskip("nibabel", reason="optional package absent: nibabel")
    words = ["chat", "--model", str(folder / "model"), "--question", "Lesions?", "--max-new-tokens", "2"]
    nifti = write_nifti(folder / "x.nii.gz", body((32, 32, 4)))
    assert main([*words, "--volume", str(folder / "ct"), "--window", "lung", "--slices", "2"]) == 0
    assert main([*words, "--volume", str(nifti), "--modality", "MR"]) == 0
    capsys.readouterr()
    assert main([*words, "--volume", str(nifti)]) == 2
    assert "does not say its modality" in capsys.readouterr().err
    assert main([*words, "--volume", str(folder / "nowhere")]) == 2
    assert "no volume" in capsys.readouterr().err


def test_options_reach_the_pictures(folder):
    items = volume_items(folder / "ct", tiny_processor(), modality=None, window="bone", slices=3)
    assert items[0]["text"] == "CT volume of 6 axial slices, 5 mm apart, bone window.\n"
    assert [item["type"] for item in items].count("image") == 3


def test_an_expert_is_offered_for_a_volume(folder):
    from vlm.experts.conversation import image_refs

    items = volume_items(folder / "ct", tiny_processor(), modality="CT", window=None, slices=3)
    (ref,) = image_refs([{"role": "user", "content": items}])
    assert ref.path == folder / "ct" and ref.modality == "CT", "slices of a volume are one image to an expert"
