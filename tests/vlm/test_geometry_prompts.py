"""One bound over all pictures of a prompt: who shrinks, by how much, what is said, and when nothing fits."""

import pytest

from vlm.geometry import GEOMETRIES, Size, check_geometry, plan_picture, plan_prompt

DYNAMIC = check_geometry({"min_num_patches": 1024, "max_num_patches": 13312, "max_prompt_patches": 13312})
PAGE = Size(1400, 1000)


def total(pictures: list[Size], planned) -> int:
    return sum(plan.num_patches * size.count for size, plan in zip(pictures, planned.plans))


def test_without_a_bound_or_below_it_every_picture_is_planned_alone():
    unbound = {key: value for key, value in DYNAMIC.items() if key != "max_prompt_patches"}
    for geometry, count in ((unbound, 20), (DYNAMIC, 2)):
        planned = plan_prompt([PAGE] * count, geometry)
        assert planned.plans == (plan_picture(1400, 1000, geometry),) * count and planned.message is None
    assert plan_prompt([], DYNAMIC).plans == ()


def test_pages_share_the_bound_and_small_pictures_keep_their_size():
    stamp = Size(500, 500)
    pictures = [PAGE] * 7 + [stamp] + [Size(2000, 700)] * 4
    planned = plan_prompt(pictures, DYNAMIC)
    assert 0.9 * 13312 < total(pictures, planned) <= 13312
    assert planned.plans[7] == plan_picture(500, 500, DYNAMIC)
    shrunk = [plan.num_patches for plan in planned.plans if plan != planned.plans[7]]
    assert min(shrunk) > 0.85 * max(shrunk), "an equal share for all"
    assert planned.message == (
        f"11 pages (of 12 pages) of up to 5,632 patches shrink to at most {max(shrunk):,} patches each to fit "
        "max_prompt_patches=13312"
    )


def test_the_shrunk_grid_is_the_one_of_the_cap_and_keeps_the_aspect_ratio():
    planned = plan_prompt([PAGE] * 12, DYNAMIC)
    (grid_h, grid_w), count = planned.plans[0].maps[0], planned.plans[0].num_patches
    assert set(planned.plans) == {planned.plans[0]} and abs(grid_h / grid_w - 1.4) < 0.12
    assert planned.plans[0] == plan_picture(1400, 1000, {**DYNAMIC, "max_num_patches": count})
    assert planned.message == (
        f"12 pages of up to 5,632 patches shrink to at most {count:,} patches each to fit max_prompt_patches=13312"
    )


def test_one_page_alone():
    planned = plan_prompt([PAGE], {**DYNAMIC, "max_prompt_patches": 2000})
    count = planned.plans[0].num_patches
    assert count <= 2000
    assert planned.message == f"1 page of 5,632 patches shrinks to {count:,} patches to fit max_prompt_patches=2000"


def test_frames_count_as_often_as_there_are_and_obey_their_own_budget():
    pictures = [Size(720, 1280, frames=16), PAGE]
    planned = plan_prompt(pictures, DYNAMIC, {"max_num_patches": 1024})
    assert total(pictures, planned) <= 13312 < 16 * 920 + 5632
    assert planned.plans[0].num_patches <= 1024 and "1 page and 16 video frames of up to" in planned.message
    roomy = plan_prompt(pictures, DYNAMIC, {"max_num_patches": 256})
    assert roomy.message is None and roomy.plans[0].num_patches <= 256


def test_tiles_share_max_tiles():
    geometry = check_geometry({**GEOMETRIES["nemotron-nano-v2-vl"], "max_prompt_patches": (4 * 7 + 1) * 1024})
    pictures = [PAGE] * 4 + [Size(300, 300)]
    planned = plan_prompt(pictures, geometry)
    assert total(pictures, planned) <= geometry["max_prompt_patches"]
    cap = max(plan.canvases[0].num_views for plan in planned.plans)
    assert cap == 6 and planned.plans[0] == plan_picture(1400, 1000, {**geometry, "max_tiles": cap})
    larger = [plan_picture(s.height, s.width, {**geometry, "max_tiles": 12}).num_patches for s in pictures]
    assert sum(larger) > geometry["max_prompt_patches"], "the largest that fits"
    assert planned.plans[4] == plan_picture(300, 300, geometry) and "4 pages (of 5 pages)" in planned.message


def test_scales_share_the_tiles_of_the_last():
    geometry = check_geometry({**GEOMETRIES["nvila"], "max_prompt_patches": 31 * 1024})
    pictures = [Size(2000, 1000), PAGE]
    planned = plan_prompt(pictures, geometry)
    assert [plan.canvases[-1].num_views for plan in planned.plans] == [10, 9] or total(pictures, planned) <= 31 * 1024
    assert planned.message and all(9 <= plan.canvases[-1].num_views <= 12 for plan in planned.plans)


@pytest.mark.parametrize(
    ("geometry", "pictures", "words"),
    [
        ({"max_prompt_patches": 7}, [PAGE] * 2, "2 pages need at least 8 patches, more than max_prompt_patches=7"),
        ({"max_prompt_patches": 60}, [Size(9, 9, frames=16)], "16 video frames need at least 64 patches.*fewer pages"),
        ({"mode": "tiles", "max_prompt_patches": 2048}, [PAGE] * 3, "3 pages need at least 3,072.*smaller tile_size"),
        ({**GEOMETRIES["nvila"], "max_prompt_patches": 20_000}, [PAGE] * 2, "28,672.*smaller scales"),
        ({**GEOMETRIES["fixed-512"], "max_prompt_patches": 1024}, [PAGE, PAGE], "2,048.*raise it.*a smaller size"),
        (
            {"mode": "multi_scale", "scales": [512], "last_scale": "square", "max_prompt_patches": 1024},
            [PAGE, PAGE],
            "2,048",
        ),
    ],
)
def test_what_cannot_fit_says_what_to_do(geometry: dict, pictures: list[Size], words: str):
    with pytest.raises(ValueError, match=words):
        plan_prompt(pictures, check_geometry(geometry))


def test_a_picture_without_area_is_refused():
    with pytest.raises(ValueError, match="0 x 5"):
        plan_prompt([PAGE, Size(0, 5)], DYNAMIC)
