"""Modes "tiles" and "multi_scale": arrangements against transformers' own and a slow twin, thumbnails, scales."""

import random
from fractions import Fraction

import pytest

from vlm.geometry import Canvas, check_geometry, plan_frame, plan_picture, plan_scales, views_of
from vlm.tile_grids import area_weighted, arrangements, closest

SIDES = [1, 2, 3, 448, 500, 512, 640, 768, 1000, 1024, 1400, 1536, 2048, 3000, 12_000]


def some_sizes(count: int) -> list[tuple[int, int]]:
    draw = random.Random(0)
    every = [(height, width) for height in SIDES for width in SIDES]
    return every + [(draw.randint(1, 6000), draw.randint(1, 6000)) for _ in range(count)]


@pytest.mark.parametrize(("least", "most"), [(1, 12), (1, 6), (1, 1), (9, 12), (4, 4)])
def test_closest_is_that_of_transformers(least: int, most: int):
    """Their GOT-OCR2 has InternVL's rule; the file needs no torchvision."""
    theirs = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    known = theirs.get_all_supported_aspect_ratios(least, most)
    assert [(rows, cols) for cols, rows in known] == list(arrangements(least, most))
    for height, width in some_sizes(1500):
        for tile in (448, 512):
            cols, rows = theirs.get_optimal_tiled_canvas.__wrapped__((height, width), (tile, tile), least, most)
            assert closest(height, width, tile, most, least) == (rows, cols), (height, width, tile)


def exact_scores(height: int, width: int, tile: int, most: int) -> dict[tuple[int, int], Fraction]:
    """The area-weighted rule in exact arithmetic: the score of every arrangement."""
    scores = {}
    for rows, cols in arrangements(1, most):
        covered = min(Fraction(rows * cols * tile * tile, height * width), Fraction(6, 10))
        ratio = Fraction(cols * height, rows * width)
        scores[rows, cols] = covered * min(ratio, 1 / ratio)
    return scores


def test_area_weighted_is_its_slow_twin():
    unique = 0
    for height, width in some_sizes(1500):
        scores = exact_scores(height, width, 512, 12)
        best = max(scores.values())
        assert scores[area_weighted(height, width, 512, 12)] == best, (height, width)
        unique += sum(score == best for score in scores.values()) == 1
    assert unique > 1000, "ties are left to floating point, as in the original"


def test_the_two_rules_differ_where_they_should():
    """By area: no more tiles than cover the picture, and more than the closest has where those cover too little."""
    assert closest(1200, 1200, 512, 12) == (3, 3) and area_weighted(1200, 1200, 512, 12) == (2, 2)
    assert closest(1038, 6226, 512, 12) == (1, 6) and area_weighted(1038, 6226, 512, 12) == (2, 6)
    assert closest(2048, 1536, 512, 12) == (4, 3) == area_weighted(2048, 1536, 512, 12)


def test_ties_go_to_more_tiles_only_for_large_pictures():
    assert closest(100, 100, 512, 12) == (1, 1)
    assert closest(800, 800, 512, 12) == (2, 2), "more than half of 2 x 2 tiles"
    assert closest(3000, 3000, 512, 12) == (3, 3)


def test_a_thumbnail_comes_last_and_only_with_several_tiles():
    geometry = check_geometry({"mode": "tiles"})
    plan = plan_picture(1000, 2000, geometry)
    assert plan.canvases == (Canvas(64, 128, 2, 4), Canvas(32, 32)) and plan.maps == ((32, 32),) * 9
    assert plan.num_patches == 9 * 1024 and plan.views == plan.maps
    assert plan_picture(500, 500, geometry).canvases == (Canvas(32, 32),)
    without = plan_picture(1000, 2000, {**geometry, "thumbnail": False})
    assert without.canvases == (Canvas(64, 128, 2, 4),)


def test_fewer_tiles_leave_smaller_pictures_alone():
    """What sharing a budget relies on: an arrangement within the new `max_tiles` stays."""
    for rule in ("closest", "area_weighted"):
        for height, width in some_sizes(200):
            geometry = {"mode": "tiles", "aspect_rule": rule}
            plan = plan_picture(height, width, geometry)
            tiles = plan.canvases[0].num_views
            assert plan_picture(height, width, {**geometry, "max_tiles": tiles}) == plan


def test_scales_of_dynamic_s2():
    geometry = check_geometry({"mode": "multi_scale", "scales": [512, 1024, 1536]})
    plan = plan_picture(1400, 1000, geometry)
    assert plan.canvases == (Canvas(32, 32), Canvas(64, 64, 2, 2), Canvas(128, 96, 4, 3)) and plan.maps == ((128, 96),)
    assert plan_scales((128, 96), geometry) == plan.canvases
    assert views_of((128, 96), geometry) == [(32, 32)] * 17 == list(plan.views)
    assert plan_picture(10, 10, geometry).canvases[-1] == Canvas(96, 96, 3, 3), "never fewer tiles than as a square"
    assert plan_picture(1400, 1000, {**geometry, "last_scale": "square"}).canvases[-1] == Canvas(96, 96, 3, 3)
    assert plan_frame(720, 1280, geometry).canvases == (Canvas(32, 32),)
    assert views_of((32, 32), geometry, is_frame=True) == [(32, 32)]


def test_one_scale_is_one_picture():
    plan = plan_picture(100, 300, {"mode": "multi_scale", "scales": [512], "last_scale": "square"})
    assert plan.canvases == (Canvas(32, 32),) and plan.maps == ((32, 32),)
    assert check_geometry({"mode": "multi_scale", "scales": 512, "last_scale": "square"})["scales"] == [512]


@pytest.mark.parametrize("grid", [(128, 100), (31, 32), (0, 32)])
def test_maps_that_no_picture_has_are_refused(grid: tuple[int, int]):
    with pytest.raises(ValueError, match="views of 32 x 32"):
        views_of(grid, {"mode": "multi_scale", "scales": [512, 1024]})


def test_a_frame_is_one_tile():
    assert plan_frame(720, 1280, {"mode": "tiles"}, {"max_num_patches": 4}).canvases == (Canvas(32, 32),)
    assert views_of((32, 32), {"mode": "tiles"}) == [(32, 32)]
    with pytest.raises(ValueError, match="no area"):
        plan_frame(0, 5, {"mode": "tiles"})
