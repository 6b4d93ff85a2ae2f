"""Lungs and nodules: drawn chests of known area and nodule, and real slices on which nothing may crash."""

import json

import numpy as np
import pytest

from tests.helpers.shared import shared_path
from vlm.experts import ExpertError, get_expert
from vlm.experts.ct_lesions import lung_areas, segment

ROWS, COLUMNS = np.ogrid[:160, :160]


def disc(row, column, radius_y, radius_x=None):
    return ((ROWS - row) / radius_y) ** 2 + ((COLUMNS - column) / (radius_x or radius_y)) ** 2 <= 1


def chest(nodule=None, vessel=False) -> np.ndarray:
    """A chest in HU with a spine, a heart, a windpipe and two lungs, at 2 mm a pixel."""
    hu = np.full((160, 160), -1000, np.float32)
    hu[disc(80, 80, 55, 70)] = 40
    hu[disc(80, 45, 38, 22)] = hu[disc(80, 115, 38, 22)] = -850
    hu[disc(85, 95, 18, 16)] = 45
    hu[disc(118, 80, 9)] = 600
    hu[disc(60, 80, 4)] = -950
    if nodule:
        hu[disc(*nodule)] = 40
    if vessel:
        hu[80:82, 30:58] = 40
    return hu + np.random.default_rng(0).normal(0, 8, hu.shape).astype(np.float32)


def test_lung_areas_are_those_drawn():
    areas = lung_areas(chest(), (2.0, 2.0), True)
    drawn = {"right": disc(80, 45, 38, 22).sum() * 0.04}
    drawn["left"] = (disc(80, 115, 38, 22) & ~disc(85, 95, 18, 16)).sum() * 0.04
    assert areas == {side: pytest.approx(area, rel=0.08) for side, area in drawn.items()}
    mirrored = lung_areas(chest(), (2.0, 2.0), False)
    assert mirrored == {"left": areas["right"], "right": areas["left"]}


@pytest.mark.parametrize("radius", [3, 5, 8])
@pytest.mark.parametrize(("row", "column"), [(70, 42), (60, 118)])
def test_a_nodule_is_found_in_its_place(radius, row, column):
    mask, lesions = segment(chest((row, column, radius)), (2.0, 2.0))
    assert len(lesions) == 1 and lesions[0]["place"] == "lung"
    assert lesions[0]["mm"] == pytest.approx(4 * radius, rel=0.15)
    assert (lesions[0]["row"], lesions[0]["column"]) == (pytest.approx(row, abs=1), pytest.approx(column, abs=1))
    assert mask[row, column] == 1 and mask.sum() == (mask == 1).sum()


@pytest.mark.parametrize("picture", [chest(), chest(vessel=True), chest((80, 45, 1))])
def test_heart_spine_vessel_and_specks_are_no_lesions(picture):
    mask, lesions = segment(picture, (2.0, 2.0))
    assert lesions == [] and not mask.any()


def test_a_slice_without_lungs_has_none():
    hu = np.full((96, 96), -1000, np.float32)
    hu[20:70, 20:70] = 40
    assert lung_areas(hu, (1.0, 1.0), True) == {}


def test_real_files_are_read_or_refused():
    folder = shared_path("data/dicom")
    expert, said = get_expert("LESIONS")(), 0
    for row in map(json.loads, (folder / "labels.jsonl").read_text().splitlines()):
        try:
            result = expert.run(folder / row["image"], ())
        except ExpertError as error:
            assert len(str(error)) < 200
        else:
            said += 1
            assert result.mask.max() == len(result.findings["lesions"]) == len(result.findings["labels"])
    assert said > 0
