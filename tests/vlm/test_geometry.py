"""Every size of image gets a legal grid, and the grids are those of NVIDIA's processor."""

import json
import random
from pathlib import Path

import pytest

from tests.helpers.shared import shared_path
from vlm.geometry import check_geometry, plan_frame, plan_image

SAMPLE = Path(__file__).resolve().parents[1] / "fixtures" / "omni" / "patch_grids_sample.json"


def grid_is_legal(grid_h: int, grid_w: int, geometry: dict) -> bool:
    """Positive sides that the projector can fold."""
    multiple = geometry["multiple"]
    return grid_h > 0 and grid_w > 0 and grid_h % multiple == 0 and grid_w % multiple == 0


def rows_agree(data: dict) -> int:
    for height, width, patch, multiple, low, high, grid_h, grid_w in data["rows"]:
        geometry = {"patch_size": patch, "multiple": multiple, "min_num_patches": low, "max_num_patches": high}
        assert plan_image(height, width, geometry) == (grid_h, grid_w), (height, width, geometry)
    for height, width, patch, multiple, low, high in data["reference_crashes"]:
        geometry = {"patch_size": patch, "multiple": multiple, "min_num_patches": low, "max_num_patches": high}
        grid_h, grid_w = plan_image(height, width, geometry)
        assert grid_is_legal(grid_h, grid_w, geometry) and grid_h * grid_w <= high, (height, width, geometry)
        assert (grid_h > grid_w) == (height > width)
    return len(data["rows"])


def test_equals_the_reference_on_the_sample():
    assert rows_agree(json.loads(SAMPLE.read_text())) == 430


def test_equals_the_reference_on_all_rows():
    assert rows_agree(json.loads(shared_path("fixtures/omni/patch_grids.json").read_text())) == 2949


def test_any_size_gets_a_legal_grid():
    draw = random.Random(0)

    def side() -> int:
        return draw.choice([1, 2, 15, 16, 17, draw.randint(1, 64), draw.randint(1, 3000), draw.randint(1, 100_000)])

    for _ in range(20_000):
        multiple = draw.choice([1, 2, 4, 6, 16, 32])  # the large ones are those of windows
        low = draw.choice([0, 1, 4, 16, 256, 1024])
        high = draw.choice([0, max(low, multiple**2), max(low, 256, multiple**2), 13312])
        geometry = check_geometry(
            {"patch_size": draw.choice([14, 16]), "multiple": multiple, "min_num_patches": low, "max_num_patches": high}
        )
        height, width = side(), side()
        grid_h, grid_w = plan_image(height, width, geometry)
        assert grid_is_legal(grid_h, grid_w, geometry), (height, width, geometry)
        longest = max(grid_h, grid_w)
        # the budget holds except on strips whose thin side is already the smallest there is (as in the reference)
        assert not high or grid_h * grid_w <= high or min(grid_h, grid_w) == multiple, (height, width, geometry)
        assert not high or longest <= max(high, multiple), (height, width, geometry)


def test_aspect_ratio_is_kept_where_the_budget_allows():
    grid_h, grid_w = plan_image(2000, 1000, {"min_num_patches": 256, "max_num_patches": 2048})
    assert abs(grid_h / grid_w - 2) < 0.15 and 1800 < grid_h * grid_w <= 2048


def test_fixed_mode_answers_one_grid():
    geometry = check_geometry({"mode": "fixed", "size": [96, 64], "multiple": 2})
    assert {plan_image(h, w, geometry) for h, w in ((1, 1), (5000, 3), (96, 64))} == {(6, 4)}
    assert plan_frame(10, 10, geometry, {"max_num_patches": 4}) == (6, 4)


def test_frames_have_their_own_budget():
    geometry = check_geometry({"min_num_patches": 1024, "max_num_patches": 4096})
    grid_h, grid_w = plan_frame(720, 1280, geometry, {"max_num_patches": 256})
    assert grid_h * grid_w <= 256 < 1024 <= plan_image(720, 1280, geometry)[0] * plan_image(720, 1280, geometry)[1]
    assert plan_frame(720, 1280, geometry, {"max_num_patches": None}) == plan_image(720, 1280, geometry)


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"mode": "tiles"}, "dynamic, fixed"),
        ({"mode": "fixed"}, "size=None"),
        ({"mode": "fixed", "size": [100, 64]}, "multiple = 32"),
        ({"min_num_patches": 512, "max_num_patches": 256}, "min_num_patches=512"),
        ({"max_num_patches": 3, "min_num_patches": 1}, r"multiple\*\*2=4"),
        ({"patchsize": 16}, "patchsize"),
    ],
)
def test_bad_settings_name_the_field(geometry: dict, words: str):
    with pytest.raises(ValueError, match=words):
        check_geometry(geometry)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_no_area_is_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match="no area"):
        plan_image(*size, {})
