"""The VISTA3D and BraTS runners on small bundles with random weights: geometry, labels, what is loaded, bad input."""

import numpy as np
import pytest

from tests.helpers.monai_bundles import brats_bundle, vista3d_bundle
from tests.helpers.optional import needs
from vlm.experts import ExpertError, brats, monai_bundle, vista3d
from vlm.experts.brats import Brats
from vlm.experts.monai_bundle import Bundle
from vlm.experts.vista3d import GROUPS, Vista3D

needs("monai", "nibabel", "scipy")
import nibabel  # noqa: E402

OBLIQUE = np.array([[-2, 0.1, 0, 30], [0.1, 2, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1.0]])


def ct() -> np.ndarray:
    """(W, H, D) HU: a body with a dense block in it."""
    array = np.full((40, 36, 30), -1000, np.float32)
    array[8:32, 8:30, 4:26], array[12:20, 12:20, 10:18] = 40, 600
    return array


@pytest.fixture(scope="module")
def vista(tmp_path_factory):
    return Vista3D(vista3d_bundle(tmp_path_factory.mktemp("w") / "vista3d"), device="cpu")


@pytest.fixture(scope="module")
def tumour(tmp_path_factory):
    return Brats(brats_bundle(tmp_path_factory.mktemp("w") / "brats"), device="cpu")


@pytest.fixture
def ct_file(tmp_path):
    nibabel.save(nibabel.Nifti1Image(ct(), OBLIQUE), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def test_labels_come_back_on_the_voxels_of_the_source(vista):
    """A threshold instead of the network: resampling, cropping and turning are undone."""
    array = np.ascontiguousarray(ct().T)
    mask = vista.bundle.predict(array[None], OBLIQUE, lambda image, _: (image[0] > 0.6).float() * 26, -950)
    truth = array > 200
    assert mask.shape == array.shape and set(np.unique(mask)) == {0, 26}
    overlap = 2 * ((mask > 0) & truth).sum() / ((mask > 0).sum() + truth.sum())
    assert overlap > 0.85


def test_vista3d_answers_for_the_group_asked_for(vista, ct_file):
    result = vista.run(ct_file, ("hepatic tumor",))
    assert result.mask.shape == (30, 36, 40) and set(np.unique(result.mask)) <= {0, 1, 26}
    assert result.findings["labels"] == {1: "liver", 26: "label 26"}
    assert result.text.startswith("label 26: ") or result.text.startswith("no label 26")
    for region in result.findings["regions"]:
        voxels = (result.mask == region["label"]).sum()
        assert region["ml"] == pytest.approx(voxels * abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000, abs=0.01)


def test_labels_in_turns_are_those_of_all_at_once(vista, ct_file, monkeypatch):
    whole = vista.run(ct_file, ("hepatic tumor",)).mask
    monkeypatch.setattr(vista3d, "BUDGET_BYTES", 1)
    assert np.array_equal(vista.run(ct_file, ("hepatic tumor",)).mask, whole) and whole.any()


def test_groups_are_labels_of_the_bundle():
    assert all(set(group) <= set(range(1, 133)) and len(set(group)) == len(group) for group in GROUPS.values())
    assert len(GROUPS["everything"]) == 117


def test_weights_are_loaded_once_and_only_by_a_call(ct_file, tmp_path, monkeypatch):
    from vlm.experts import ExpertSession

    loads = []
    real = Bundle.__init__
    monkeypatch.setattr(Bundle, "__init__", lambda self, *a, **k: (loads.append(a[0].name), real(self, *a, **k))[1])
    monkeypatch.setattr(monai_bundle, "weights_folder", lambda name: vista3d_bundle(tmp_path / name))
    monkeypatch.setattr(monai_bundle, "bundle_unavailable", lambda *a: None)
    session = ExpertSession(["VISTA3D", "BRATS", "LESIONS"])
    assert loads == []
    for _ in range(2):
        expert = session.instances.get("VISTA3D") or session.instances.setdefault("VISTA3D", Vista3D())
        expert.run(ct_file, ("bone lesion",))
    assert loads == ["vista3d"]


def test_a_session_runs_it_on_a_series(vista, tmp_path):
    """Offered by the headers of the series' files; the mask has the shape of the series."""
    from tests.helpers.ct_series import write_series
    from vlm.experts import ExpertSession

    write_series(tmp_path / "s", [0, 5, 10, 15])
    content = [{"type": "image", "image": str(tmp_path / "s")}, {"type": "text", "text": "Bones?"}]
    script = iter(["<VISTA3D(skeleton)>", "many"])
    session = ExpertSession(["VISTA3D", "BRATS"], instances={"VISTA3D": vista})
    transcript = session.run(lambda batch: [next(script)], [{"role": "user", "content": content}])
    assert transcript.offered == ["VISTA3D"] and transcript.calls[0].ok, transcript.calls
    assert transcript.calls[0].result.mask.shape == (4, 96, 96) and "part" in transcript.calls[0].text


@pytest.mark.parametrize(
    ("arguments", "message"), [(("heart",), "unknown argument"), (("organs", "muscles"), "one argument")]
)
def test_wrong_arguments_are_refused(vista, arguments, message):
    with pytest.raises(ExpertError, match=message):
        vista.check(arguments)


def test_bad_volumes_are_refused(vista, tmp_path, monkeypatch):
    nibabel.save(nibabel.Nifti1Image(np.full((20, 20, 20), -1000, np.float32), np.eye(4)), tmp_path / "air.nii")
    with pytest.raises(ExpertError, match="empty"):
        vista.run(tmp_path / "air.nii", ("organs",))
    nibabel.save(nibabel.Nifti1Image(ct(), OBLIQUE), tmp_path / "ct.nii")
    monkeypatch.setattr(monai_bundle, "MAX_RESAMPLED", 100)
    with pytest.raises(ExpertError, match="too large"):
        vista.run(tmp_path / "ct.nii", ("organs",))


def test_a_bundle_that_does_not_fit_is_refused(tmp_path):
    folder = vista3d_bundle(tmp_path / "vista3d")
    brats_bundle(tmp_path / "brats")
    (folder / "models/model.pt").write_bytes((tmp_path / "brats/models/model.pt").read_bytes())
    with pytest.raises(ExpertError, match="not usable"):
        Vista3D(folder)
    (folder / "configs/metadata.json").unlink()
    with pytest.raises(ExpertError, match="metadata.json is missing; radio-vlm experts --download VISTA3D"):
        Vista3D(folder)


def write_sequences(folder, names, shape=(24, 20, 16)):
    rng = np.random.default_rng(0)
    for name in names:
        nibabel.save(nibabel.Nifti1Image(rng.random(shape, np.float32) + 0.1, np.eye(4)), folder / name)


def test_brats_reads_four_sequences_by_name_and_in_order(tumour, tmp_path, monkeypatch):
    names = ["a_flair.nii.gz", "a_t1.nii.gz", "a_t1ce.nii.gz", "a_t2.nii.gz"]
    write_sequences(tmp_path, [*names, "b_t1.nii.gz"])
    seen = []
    real = brats.read_channels
    monkeypatch.setattr(brats, "read_channels", lambda files: (seen.append(list(files.values())), real(files))[1])
    result = tumour.run(tmp_path / "a_t2.nii.gz", ())
    assert [file.name for file in seen[0]] == ["a_t1ce.nii.gz", "a_t1.nii.gz", "a_t2.nii.gz", "a_flair.nii.gz"]
    assert result.mask.shape == (16, 20, 24) and set(np.unique(result.mask)) <= {0, 1, 2, 4}
    sizes = {region["name"]: region["ml"] for region in result.findings["regions"]}
    assert sizes["whole tumor"] == pytest.approx((result.mask > 0).sum() / 1000, abs=0.01)
    assert result.findings["labels"] == {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}
    assert result.text.startswith("whole tumor: ")


def test_brats_channels_differ(tumour, tmp_path):
    """Four times the same sequence (a known defect elsewhere) must not give the answer of four sequences."""
    names = ["t1ce.nii", "t1.nii", "t2.nii", "flair.nii"]
    write_sequences(tmp_path, names)
    right = tumour.run(tmp_path, ()).mask
    for name in names[1:]:
        (tmp_path / name).write_bytes((tmp_path / "t1ce.nii").read_bytes())
    assert not np.array_equal(tumour.run(tmp_path, ()).mask, right)


def test_brats_says_which_sequence_is_missing_twice_or_elsewhere(tumour, tmp_path):
    write_sequences(tmp_path, ["t1ce.nii", "t1.nii", "flair.nii"])
    with pytest.raises(ExpertError, match="missing: t2"):
        tumour.run(tmp_path, ())
    write_sequences(tmp_path, ["t2.nii"], shape=(24, 20, 8))
    with pytest.raises(ExpertError, match="t2 does not lie on the voxels"):
        tumour.run(tmp_path, ())
    write_sequences(tmp_path, ["t2.nii", "x_t2.nii"])
    with pytest.raises(ExpertError, match="t2 twice"):
        tumour.run(tmp_path, ())
