"""How images and frames become patch grids: pure functions, the one place where sizes are decided.

The processor resizes to what these plans say and the model reads its grids by the same rules, so placeholders and
features cannot disagree. Modes: "dynamic" keeps the aspect ratio within a patch budget (`vlm.patch_budget`), "tiles"
cuts the picture into squares (`vlm.tile_grids`), "multi_scale" shows it at several scales (`vlm.scale_grids`), "fixed"
resizes to one size. This file gathers what the others offer; settings are those of `vlm.geometry_fields`.
"""

from vlm.geometry_fields import COMMON, MODE_FIELDS, MODES, check_geometry
from vlm.geometry_presets import GEOMETRIES
from vlm.picture_plan import Canvas, PicturePlan, plan_frame, plan_picture, plan_scales, views_of
from vlm.prompt_budget import PromptPlan, Size, plan_prompt

__all__ = [
    "COMMON", "DEFAULT_GEOMETRY", "GEOMETRIES", "MODES", "MODE_FIELDS", "Canvas", "PicturePlan", "PromptPlan", "Size",
    "check_geometry", "plan_frame", "plan_image", "plan_picture", "plan_prompt", "plan_scales", "views_of",
]  # fmt: skip

DEFAULT_GEOMETRY = check_geometry({})


def plan_image(height: int, width: int, geometry: dict) -> tuple[int, int]:
    """The only grid `(grid_h, grid_w)` of an image in the modes that have one: "dynamic" and "fixed".

    Raises:
        ValueError: the geometry gives several; use `plan_picture`.
    """
    plan = plan_picture(height, width, geometry)
    if len(plan.canvases) > 1 or plan.canvases[0].num_views > 1:
        raise ValueError(f"mode {geometry['mode']!r} gives an image several grids: use plan_picture")
    return plan.maps[0]
