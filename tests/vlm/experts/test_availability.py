"""Experts whose packages or weights are not there: listed with what to install, never offered, never a crash."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlm.experts import ExpertError, ExpertSession, expert_names, get_expert, weights

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("monai", "torchxrayvision", "torchvision", "highdicom", "nibabel", "pydicom", "scipy", "skimage")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without optional packages and weights."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    return tmp_path


@pytest.mark.parametrize("name", expert_names())
def test_every_expert_is_declared_in_full(name):
    card = get_expert(name).card
    assert all((card.name, card.modality, card.body_part, card.returns, card.weights))
    assert all(len(part) in (2,) and part.isupper() for part in card.modality.split("/"))
    assert len(card.line()) < 300, "the card stands in every prompt"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("VISTA3D", "not installed: monai, nibabel, scipy; pip install 'radio-vlm[experts]'"),
        ("BRATS", "not installed: monai, nibabel, scipy; pip install 'radio-vlm[experts]'"),
        ("CXR", "not installed: torchxrayvision, torchvision; pip install 'radio-vlm[experts]'"),
        ("FINDINGS", "no weights:  ... model.safetensors is missing; python -m training.experts.chest_xray_tiny --out"),
    ],
)
def test_what_is_missing_is_said_with_the_way_to_get_it(bare, name, said):
    reason = get_expert(name).unavailable()
    assert all(part in reason for part in said.split(" ... "))
    with pytest.raises(ExpertError) as raised:
        get_expert(name)()
    assert str(raised.value) == f"{name} cannot be used here: {reason}"


def test_packages_without_weights_name_the_download(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: object())
    assert "radio-vlm experts --download VISTA3D" in get_expert("VISTA3D").unavailable()
    said = get_expert("CXR").unavailable()
    assert said.startswith("no weights: all, nih, pc, ") and "radio-vlm experts --download CXR" in said
    folder = tmp_path / ".torchxrayvision/models_data"
    folder.mkdir(parents=True)
    for start in ("nih-pc-chex-mimic_ch-google-openi-kaggle", "nih", "pc", "chex", "kaggle", "mimic_nb", "mimic_ch"):
        (folder / f"{start}-densenet121-d121-best.pt").touch()
    assert get_expert("CXR").unavailable().startswith("no weights: resnet not in")
    (folder / "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt").touch()
    assert get_expert("CXR").unavailable() is None


def test_what_cannot_run_is_not_offered_unless_asked_for(bare):
    assert list(ExpertSession().cards) == ["LESIONS"]
    assert list(ExpertSession(["VISTA3D"]).cards) == ["VISTA3D"]


@pytest.mark.parametrize("name", [name for name in expert_names() if get_expert(name).weights_name])
def test_weights_are_looked_for_in_the_folder_given(bare, tmp_path, name, monkeypatch):
    """Its own place counts where the folder holds nothing for it."""
    expert = get_expert(name)
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: object())
    assert weights.why_not(expert, tmp_path / "given") == expert.unavailable()
    (tmp_path / "given" / expert.weights_name).mkdir(parents=True)
    said = weights.why_not(expert, tmp_path / "given")
    assert str(tmp_path / "given" / expert.weights_name) in said and said != expert.unavailable()
    with pytest.raises(ExpertError, match="cannot be used here"):
        weights.open_expert(expert, tmp_path / "given")
    assert weights.why_not(get_expert("LESIONS"), tmp_path) is None and list(ExpertSession(weights=tmp_path).cards)


def test_importing_the_experts_needs_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        "import vlm.experts as e\n"
        "print(e.expert_names())\n"
        "print([e.get_expert(name).unavailable() for name in e.expert_names()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "VISTA3D" in done.stdout and "not installed: monai" in done.stdout
