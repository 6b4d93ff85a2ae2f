"""10,000 sizes from 1 x 1 to 12,000 x 9,000 in all modes, and controls: the check does find what is broken."""

import pytest
import torch

from projectors.components import build_projector, default_config, grid_multiple, num_tokens, projector_names
from tests.helpers import geometry_property
from tests.helpers.geometry_property import LONGEST, TALLEST, WIDEST, failures, sizes
from vlm import picture_plan, prompt_budget
from vlm.geometry import check_geometry, plan_picture
from vlm.picture_plan import PicturePlan
from vlm.prompt_budget import PromptPlan


def test_sizes_reach_the_corners():
    drawn = list(sizes(10_000))
    assert len(drawn) == 10_000 and {(1, 1), (TALLEST, WIDEST)} <= set(drawn)
    assert max(max(h / w, w / h) for h, w in drawn) == LONGEST
    assert min(h for h, _ in drawn) == min(w for _, w in drawn) == 1
    assert max(h for h, _ in drawn) == TALLEST and max(w for _, w in drawn) == WIDEST


def test_every_promise_holds():
    assert failures(10_000) == []


def swap_sides(monkeypatch):
    whole = picture_plan.budget_grid
    monkeypatch.setattr(picture_plan, "budget_grid", lambda h, w, *rest: whole(w, h, *rest))


def forget_the_cap(monkeypatch):
    whole = picture_plan.budget_grid
    monkeypatch.setattr(picture_plan, "budget_grid", lambda h, w, p, m, low, high: whole(h, w, p, m, low, 0))


def lose_a_map(monkeypatch):
    whole = geometry_property.plan_picture
    monkeypatch.setattr(
        geometry_property, "plan_picture", lambda *size: PicturePlan((p := whole(*size)).canvases, p.maps[1:] or p.maps)
    )


def keep_quiet(monkeypatch):
    whole = geometry_property.plan_prompt
    monkeypatch.setattr(geometry_property, "plan_prompt", lambda *all_of: PromptPlan(whole(*all_of).plans))


def only_claim_to_shrink(monkeypatch):
    whole = prompt_budget.plan_prompt
    monkeypatch.setattr(
        geometry_property,
        "plan_prompt",
        lambda pictures, geometry, video: PromptPlan(
            whole(pictures, {**geometry, "max_prompt_patches": None}, video).plans,
            whole(pictures, geometry, video).message,
        ),
    )


def wrong_tiles(monkeypatch):
    monkeypatch.setattr(picture_plan, "tile_grid", lambda height, width, tile, most, rule: (1, most))


def crash(monkeypatch):
    monkeypatch.setattr(picture_plan, "tile_grid", lambda *facts: 1 / 0)


BREAKAGES = [swap_sides, forget_the_cap, lose_a_map, keep_quiet, only_claim_to_shrink, wrong_tiles, crash]


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_plan_is_found(monkeypatch, breakage):
    assert failures(600) == []
    breakage(monkeypatch)
    assert failures(600) != []


@pytest.mark.parametrize("name", projector_names())
def test_placeholders_are_features(name: str):
    """What `num_tokens` counts over the maps of a plan is what the projector answers, for every projector and mode."""
    config = default_config({"type": name}, 8, 8)
    multiple = grid_multiple(config)
    side = 16 * multiple
    projector = build_projector(config, 8, 8).eval()
    common = {"multiple": multiple}
    for geometry in (
        {"min_num_patches": 4, "max_num_patches": max(64, multiple**2)},
        {"mode": "tiles", "tile_size": 2 * side, "max_tiles": 4},
        {"mode": "multi_scale", "scales": [side, 2 * side], "max_tiles": 6},
        {"mode": "fixed", "size": [side, 3 * side]},
    ):
        geometry = check_geometry({**common, **geometry})
        for height, width in [(1, 1), (300, 10), (57, 61), *list(sizes(25, seed=1))[8:]]:
            maps = plan_picture(height, width, geometry).maps
            with torch.no_grad():
                tokens = projector(torch.rand(sum(h * w for h, w in maps), 8), list(maps))
            assert len(tokens) == sum(num_tokens(config, *grid) for grid in maps) > 0, (geometry, height, width)
