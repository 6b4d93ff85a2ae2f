"""Settings of a geometry, and mode "dynamic": every size of image gets a legal grid, that of NVIDIA's processor."""

import json
import random
from pathlib import Path

import pytest

from tests.helpers.shared import shared_path
from vlm.geometry import GEOMETRIES, MODES, check_geometry, plan_frame, plan_image, plan_picture
from vlm.patch_budget import budget_grid, share

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
    assert plan_frame(10, 10, geometry, {"max_num_patches": 4}).maps == ((6, 4),)


def test_frames_have_their_own_budget():
    geometry = check_geometry({"min_num_patches": 1024, "max_num_patches": 4096})
    assert plan_frame(720, 1280, geometry, {"max_num_patches": 256}).num_patches <= 256
    assert plan_picture(720, 1280, geometry).num_patches >= 1024
    assert plan_frame(720, 1280, geometry, {"max_num_patches": None}) == plan_picture(720, 1280, geometry)


def test_the_budget_is_kept_where_the_reference_passes_its_own():
    """Growing to the minimum (32 x 16 = 512 patches there) or a large multiple never passes a budget that can hold."""
    grid_h, grid_w = budget_grid(31, 24, 14, 16, 256, 510)
    assert grid_h * grid_w <= 510
    grid_h, grid_w = budget_grid(16, 1600, 16, 2, 256, 300)
    assert grid_h * grid_w <= 300 and grid_w > 20 * grid_h


@pytest.mark.parametrize("cap", [4, 60, 1000, 1023, 1024, 1500, 10**6])
def test_a_share_is_never_passed_and_is_used(cap: int):
    facts = (16, 2, 1024, 13312)
    for height, width in ((3000, 2000), (100, 100), (10, 3000), (1, 1), (900, 40)):
        whole = budget_grid(height, width, *facts)
        grid_h, grid_w = share(height, width, *facts, cap)
        assert grid_is_legal(grid_h, grid_w, {"multiple": 2}) and grid_h * grid_w <= cap
        if whole[0] * whole[1] <= cap:
            assert (grid_h, grid_w) == whole
        elif cap >= 60 and max(height, width) < 3 * min(height, width):
            assert grid_h * grid_w >= 0.7 * cap, "a picture the minimum had magnified is not thrown back to its pixels"


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"mode": "mosaic"}, "dynamic, fixed, tiles, multi_scale"),
        ({"mode": "fixed", "size": [64, 64], "min_num_patches": 4}, "min_num_patches=4 does not belong to mode 'fix"),
        ({"tile_size": 512}, "does not belong to mode 'dynamic' but to 'tiles'"),
        ({"max_tiles": 4}, "but to 'tiles' and 'multi_scale'"),
        ({"mode": "tiles", "scales": [512]}, "scales=.* does not belong to mode 'tiles'"),
        ({"mode": "tiles", "tile_size": 500}, "tile_size=500 must be a multiple of patch_size . multiple = 32"),
        ({"mode": "tiles", "tile_size": "512"}, "tile_size='512' must be an integer"),
        ({"mode": "tiles", "max_tiles": 0}, "max_tiles=0 must be an integer of at least 1"),
        ({"mode": "tiles", "max_tiles": 1000}, "max_tiles=1000 is more than"),
        ({"mode": "tiles", "thumbnail": "no"}, "thumbnail='no'"),
        ({"mode": "tiles", "aspect_rule": "nearest"}, "closest, area_weighted"),
        ({"mode": "multi_scale", "scales": []}, "scales="),
        ({"mode": "multi_scale", "scales": [512, 1000]}, "multiples of the first"),
        ({"mode": "multi_scale", "scales": [1024, 512]}, "must rise"),
        ({"mode": "multi_scale", "scales": [500, 1000]}, "multiple = 32"),
        ({"mode": "multi_scale", "max_tiles": 8}, "max_tiles=8 must be an integer of at least 9, the tiles of"),
        ({"mode": "multi_scale", "last_scale": "round"}, "dynamic, square"),
        ({"max_prompt_patches": 0}, "max_prompt_patches=0 must be None"),
        ({"max_prompt_patches": 3}, "at least 4"),
        ({"mode": "tiles", "max_prompt_patches": 1023}, "at least 1024, the patches of one tile of tile_size=512"),
        ({"mode": "multi_scale", "max_prompt_patches": 9000}, "at least 10976"),
        ({"mode": "fixed", "size": [512, 512], "max_prompt_patches": 1000}, "at least 1024"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"multiple": 1.5}, "multiple=1.5"),
        ({"min_num_patches": -1}, "min_num_patches=-1"),
        ({"mode": "fixed", "size": 512}, "size=512"),
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


def test_defaults_are_filled_in_and_checking_twice_changes_nothing():
    for mode in MODES:
        given = {"mode": mode, **({"size": (64, 32)} if mode == "fixed" else {}), "max_prompt_patches": None}
        full = check_geometry(given)
        assert check_geometry(full) == full and full["patch_size"] == 16 and "max_prompt_patches" not in full
        assert json.loads(json.dumps(full)) == full, "it is saved as JSON"
    assert check_geometry({"max_prompt_patches": 4096})["max_prompt_patches"] == 4096
    assert check_geometry({"tile_size": None, "size": None}) == check_geometry({}), "None is no setting"


def test_presets_are_legal_and_say_what_they_are_named_for():
    for name, geometry in GEOMETRIES.items():
        assert check_geometry(geometry)["mode"] == geometry["mode"], name
    page = {name: plan_picture(1400, 1000, geometry).num_patches for name, geometry in GEOMETRIES.items()}
    assert page == {
        "nemotron-omni": 88 * 64,
        "nemotron-nano-v2-vl": 13 * 1024,
        "nemotron-nano-vl-8b": 13 * 1024,
        "nvila": (1 + 4 + 12) * 1024,
        "fixed-512": 1024,
    }


def test_plan_image_refuses_modes_with_several_grids():
    with pytest.raises(ValueError, match="plan_picture"):
        plan_image(1400, 1000, GEOMETRIES["nvila"])
