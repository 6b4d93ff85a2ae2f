"""The lesion expert against the truth of 200 slices, and on files that it must refuse."""

import random

import numpy as np
import pydicom
import pytest

from tests.helpers.shared import shared_path
from training.data.synthetic.slices import random_slice, render, write_dicom
from vlm.experts import ExpertError, get_expert
from vlm.experts.ct_lesions import segment


@pytest.fixture(scope="module")
def expert():
    return get_expert("LESIONS")()


def test_it_is_right_on_at_least_98_of_100_slices(expert, tmp_path):
    rng, right, total = random.Random(1), 0, 200
    for index in range(total):
        item = random_slice(rng, 96, rng.randint(0, 3))
        write_dicom(tmp_path / "a.dcm", render(item, index), item, index, "t")
        result = expert.run(tmp_path / "a.dcm", ())
        lesions = result.findings["lesions"]
        found = [len(lesions)] + ([lesions[0]["side"], round(lesions[0]["mm"])] if lesions else [])
        truth = [len(item.lesions)] + ([item.lesions[0].side(96), item.lesions[0].mm] if item.lesions else [])
        right += found == truth
        assert result.mask.shape == (96, 96) and result.mask.max() == len(lesions)
    assert right / total >= 0.98


def test_the_side_follows_the_header_not_the_picture(expert, tmp_path):
    item = random_slice(random.Random(2), 96, 1)
    write_dicom(tmp_path / "a.dcm", render(item, 0), item, 0, "t")
    side = expert.run(tmp_path / "a.dcm", ()).findings["lesions"][0]["side"]
    assert side == item.lesions[0].side(96)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    data.save_as(tmp_path / "b.dcm")
    assert {side, expert.run(tmp_path / "b.dcm", ()).findings["lesions"][0]["side"]} == {"left", "right"}


def test_the_size_follows_the_spacing(expert, tmp_path):
    item = random_slice(random.Random(3), 96, 1)
    write_dicom(tmp_path / "a.dcm", render(item, 0), item, 0, "t")
    mm = expert.run(tmp_path / "a.dcm", ()).findings["lesions"][0]["mm"]
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.PixelSpacing = [item.spacing / 2, item.spacing / 2]
    data.save_as(tmp_path / "b.dcm")
    assert expert.run(tmp_path / "b.dcm", ()).findings["lesions"][0]["mm"] == pytest.approx(mm / 2)


def test_an_empty_slice_has_no_lesions():
    mask, lesions = segment(np.full((32, 32), -1000.0, np.float32), (1.0, 1.0))
    assert not mask.any() and lesions == []


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("Modality", "MR", "MR, not CT"),
        ("Modality", None, "no stated modality"),
        ("PixelSpacing", None, "no spacing"),
        ("ImageOrientationPatient", None, "no spacing or orientation"),
        ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], "no left and right"),
        ("PixelData", None, "cannot read"),
    ],
)
def test_what_the_header_does_not_allow_is_refused(expert, tmp_path, keyword, value, message):
    item = random_slice(random.Random(4), 96, 1)
    write_dicom(tmp_path / "a.dcm", render(item, 0), item, 0, "t")
    data = pydicom.dcmread(tmp_path / "a.dcm")
    if value is None:
        delattr(data, keyword)
    else:
        setattr(data, keyword, value)
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(ExpertError, match=message):
        expert.run(tmp_path / "a.dcm", ())


def test_a_file_that_is_no_dicom_is_refused(expert, tmp_path):
    (tmp_path / "a.dcm").write_text("hello")
    with pytest.raises(ExpertError, match="cannot read"):
        expert.run(tmp_path / "a.dcm", ())


def enhanced(item, seed: int) -> np.ndarray:
    """The slice after contrast medium: a vessel along it, and organs as bright as lesions."""
    hu = render(item, seed)
    bright = (hu > 55) & (hu < 90)
    hu[bright] += 100  # the kidneys
    hu[44:48, 20:76] = 210
    return hu


@pytest.mark.parametrize("change", ["contrast", "specks", "many"])
def test_what_it_does_not_understand_is_refused(expert, tmp_path, change):
    item = random_slice(random.Random(4), 96, 1)
    hu = render(item, 0, noise=0)
    rows, columns = np.mgrid[:96, :96]
    if change == "contrast":
        hu = enhanced(item, 0)
    elif change == "specks":  # calcium: each too small for a lesion
        hu[(rows % 6 == 0) & (columns % 6 == 0) & (np.abs(hu - 40) < 9)] = 200
    else:
        hu[(rows % 8 < 4) & (columns % 8 < 4) & (np.abs(rows - 42) < 20) & (np.abs(columns - 48) < 20)] = 160
    write_dicom(tmp_path / "a.dcm", hu, item, 0, "t")
    with pytest.raises(ExpertError, match="no plausible number" if change == "many" else "no round lesions"):
        expert.run(tmp_path / "a.dcm", ())
    write_dicom(tmp_path / "b.dcm", render(item, 0), item, 0, "t")
    assert expert.run(tmp_path / "b.dcm", ()).text.startswith("1 lesion;")


def test_it_counts_no_lesions_on_real_contrast_enhanced_slices(expert):
    """Files of pydicom's test set: what has much bright tissue is refused, a plain head has no lesion."""
    folder = shared_path("data/dicom")
    plain = expert.run(folder / "693_J2KR.dcm", ())
    assert plain.text == "0 lesions" and not plain.mask.any()
    for name in ("CT_small.dcm", "explicit_VR-UN.dcm"):
        with pytest.raises(ExpertError, match="square cm of bright tissue"):
            expert.run(folder / name, ())
