"""The ensemble's arithmetic with stand-in networks: who is asked, who is left out, what is loaded and how often."""

import numpy as np
import pytest
from PIL import Image

from vlm.experts import ExpertError
from vlm.experts.chest_xray_ensemble import LABELS, NETWORKS, SUBSETS, ChestXrayEnsemble, as_function, combine

# What TorchXRayVision's networks were not trained on (its own tables of targets).
MIMIC = ("Infiltration", "Emphysema", "Fibrosis", "Pleural_Thickening", "Nodule", "Mass", "Hernia")
BLANK = {
    "densenet121-res224-chex": MIMIC,
    "densenet121-res224-mimic_nb": MIMIC,
    "densenet121-res224-mimic_ch": MIMIC,
    "densenet121-res224-nih": LABELS[14:],
    "densenet121-res224-pc": ("Lung Lesion", "Lung Opacity", "Enlarged Cardiomediastinum"),
    "densenet121-res224-rsna": tuple(label for label in LABELS if label not in ("Pneumonia", "Lung Opacity")),
    "resnet50-res512-all": ("Lung Lesion", "Enlarged Cardiomediastinum"),
}


class Stand:
    """Loads stand-ins whose answer to every finding they know is their place in the table / 10."""

    def __init__(self):
        self.loaded, self.calls = [], 0

    def __call__(self, name):
        self.loaded.append(name)
        value = list(NETWORKS.values()).index(name) / 10

        def network(picture):
            assert picture.shape == (512, 512) and 0 <= picture.min() and picture.max() <= 1
            self.calls += 1
            return {label: value for label in LABELS if label not in BLANK.get(name, ())}

        return network


@pytest.fixture
def picture(tmp_path):
    Image.new("L", (40, 30), 128).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_every_finding_is_the_mean_of_those_who_know_it(picture):
    result = ChestXrayEnsemble(networks=Stand()).run(picture, ())
    probabilities, who = result.findings["probabilities"], result.findings["networks"]
    assert len(probabilities) == 18
    assert who["pneumothorax"] == ["resnet"] and probabilities["pneumothorax"] == pytest.approx(0.7)
    assert who["effusion"] == ["all", "chex", "pc", "resnet"]
    assert probabilities["effusion"] == pytest.approx((0 + 0.2 + 0.3 + 0.7) / 4)
    assert who["fracture"] == ["all", "chex", "resnet"], "nih was not trained on fractures"
    assert probabilities["fracture"] == pytest.approx((0 + 0.3 + 0.7) / 3)
    assert who["lung lesion"] == ["all", "chex", "mimic_nb", "mimic_ch"]
    assert who["pneumonia"] == list(NETWORKS), "all eight know it"
    lines = result.text.split("\n")
    assert lines[3] == "pneumothorax: yes" and "pleural thickening: no" in lines and len(lines) == 18


def test_parity_counts_one_half_for_those_who_do_not():
    said = {"all": {"Fracture": 0.9}, "nih": {}, "chex": {"Fracture": 0.9}, "resnet": {"Fracture": 0.9}}
    assert combine("Fracture", said)[0] == pytest.approx(0.9)
    assert combine("Fracture", said, parity=True)[0] == pytest.approx((3 * 0.9 + 0.5) / 4)
    with pytest.raises(ExpertError, match="no network knows Fracture"):
        combine("Fracture", {"nih": {}})


def test_networks_are_loaded_once_and_only_those_that_are_needed(picture):
    stand = Stand()
    expert = ChestXrayEnsemble(networks=stand)
    assert stand.loaded == [], "nothing before the first call"
    for _ in range(3):
        expert.run(picture, ())
    assert stand.loaded == list(NETWORKS.values()) and stand.calls == 24
    few = Stand()
    ChestXrayEnsemble(labels=["Pneumothorax"], networks=few).run(picture, ())
    assert few.loaded == ["resnet50-res512-all"]


def test_subsets_and_labels_are_known_names():
    assert set(SUBSETS) <= set(LABELS) and all(set(names) <= set(NETWORKS) for names in SUBSETS.values())
    with pytest.raises(ValueError, match="unknown finding Cold"):
        ChestXrayEnsemble(labels=["Cold"], networks=Stand())


def test_a_classifier_becomes_a_function_without_its_blank_targets():
    import torch

    class Model(torch.nn.Module):
        targets = ["Edema", "", "Mass", "Hernia"]

        def __init__(self):
            super().__init__()
            self.input_resolution = 4
            self.register_buffer("op_threshs", torch.tensor([0.1, float("nan"), float("nan"), 0.1]))

        def forward(self, pixels):
            assert pixels.shape == (1, 1, 4, 4) and pixels.min() == -1024 and 0 < pixels.max() <= 1024
            return torch.tensor([[0.2, 0.5, 0.5, 0.8]])

    function = as_function(Model(), "cpu")
    assert function(np.repeat(np.eye(4, dtype=np.float32), 2, axis=0).repeat(2, axis=1)) == pytest.approx(
        {"Edema": 0.2, "Hernia": 0.8}
    )


def test_another_modality_or_no_picture_is_refused(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")
    from training.data.synthetic.xrays import write_dicom

    write_dicom(tmp_path / "a.dcm", np.full((32, 32), 0.5, np.float32), "t", 0, "CR")
    expert = ChestXrayEnsemble(networks=Stand())
    assert expert.run(tmp_path / "a.dcm", ()).text
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.Modality = "CT"
    data.save_as(tmp_path / "ct.dcm")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG....")
    for name, message in (
        ("ct.dcm", "CT, not a chest X-ray"),
        ("broken.png", "cannot read"),
        ("no.png", "cannot read"),
    ):
        with pytest.raises(ExpertError, match=message) as raised:
            expert.run(tmp_path / name, ())
        assert str(tmp_path) not in str(raised.value)
