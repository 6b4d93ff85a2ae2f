"""What must hold for the plan of any picture in any mode, and the sizes it is tried on."""

import math
import random
from collections.abc import Iterator

from projectors.components import num_tokens
from vlm.geometry import GEOMETRIES, PicturePlan, Size, check_geometry, plan_frame, plan_picture, plan_prompt, views_of

TALLEST, WIDEST, LONGEST = 12_000, 9_000, 200  # pixels, pixels, ratio of the sides


def sizes(count: int, seed: int = 0) -> Iterator[tuple[int, int]]:
    """`count` random (height, width) from 1 x 1 to 12,000 x 9,000, small ones as often as large ones; every fifth is a
    strip of up to 1 : 200, and the corners come first."""
    draw = random.Random(seed)
    corners = [(1, 1), (TALLEST, WIDEST), (1, LONGEST), (LONGEST, 1), (TALLEST, 60), (45, WIDEST), (15, 17), (16, 16)]
    yield from corners[:count]
    for index in range(count - len(corners)):
        height = min(TALLEST, int(TALLEST ** draw.random() + 0.5))
        if index % 5 == 0:
            ratio = draw.uniform(1, LONGEST)
            width = height * ratio if draw.random() < 0.5 else height / ratio
        else:
            width = WIDEST ** draw.random()
        yield height, min(max(int(width), math.ceil(height / LONGEST)), WIDEST, height * LONGEST)


def any_geometry(draw: random.Random) -> dict:
    """A random legal geometry of any mode, about half of them a preset."""
    if draw.random() < 0.5:
        return check_geometry(draw.choice(list(GEOMETRIES.values())))
    patch, multiple = draw.choice([14, 16]), draw.choice([1, 2, 3, 4, 16])
    side, common = patch * multiple, {"patch_size": patch, "multiple": multiple}
    mode = draw.choice(["dynamic", "dynamic", "tiles", "multi_scale", "fixed"])
    if mode == "fixed":
        own = {"size": [side * draw.randint(1, 9), side * draw.randint(1, 9)]}
    elif mode == "tiles":
        rule = draw.choice(["closest", "area_weighted"])
        own = {"tile_size": side * draw.randint(1, 9), "max_tiles": draw.choice([1, 2, 6, 12, 20]), "aspect_rule": rule}
        own["thumbnail"] = draw.random() < 0.7
    elif mode == "multi_scale":
        first, steps = side * draw.randint(1, 5), draw.choice([[1], [1, 2], [1, 3], [1, 2, 3], [1, 2, 4]])
        own = {"scales": [first * step for step in steps], "max_tiles": draw.choice([16, 20])}
        own["last_scale"] = draw.choice(["dynamic", "square"])
    else:
        low = draw.choice([0, 1, 16, 256, 1024])
        least = max(low, multiple**2)
        own = {"min_num_patches": low, "max_num_patches": draw.choice([0, least, least + 300, 4 * least, 13312])}
    return check_geometry({"mode": mode, **common, **own})


def factor(grid: tuple[int, int], height: int, width: int) -> float:
    """By how much the aspect ratio of `grid` differs from the picture's, as a factor from 1 on."""
    ratio = grid[0] / grid[1] * width / height
    return max(ratio, 1 / ratio)


def dynamic_problem(height: int, width: int, geometry: dict, grid: tuple[int, int]) -> str | None:
    """The documented bounds of `vlm.patch_budget.budget_grid`."""
    patch, multiple, budget = geometry["patch_size"], geometry["multiple"], geometry["max_num_patches"] or 2**62
    own = [round(side / patch + 0.5) for side in (height, width)]
    if max(own) * multiple**2 > budget * min(own):  # a strip the budget cannot show
        is_long = min(grid) == multiple and max(grid) <= max(budget, multiple)
        return None if is_long else f"a strip became {grid}"
    if grid[0] * grid[1] > budget:
        return f"{grid} exceeds {budget} patches"
    slack = multiple + 1
    lowest = max((side - slack) / exact for side, exact in zip(grid, own))
    highest = min((side + slack) / exact for side, exact in zip(grid, own))
    return None if lowest <= highest else f"{grid} is no scaling of {own} within {slack} patches"


def plan_problem(height: int, width: int, geometry: dict, plan: PicturePlan) -> str | None:
    """What is wrong with the plan of an image, if anything."""
    multiple, mode = geometry["multiple"], geometry["mode"]
    for canvas in plan.canvases:
        if canvas.grid_h % canvas.rows or canvas.grid_w % canvas.cols:
            return f"{canvas} cannot be cut"
        if min(canvas.view) < 1 or any(side % multiple for side in canvas.view):
            return f"the view {canvas.view} is no multiple of {multiple}"
    behind = [view for grid in plan.maps for view in views_of(grid, geometry)]
    if tuple(behind) != plan.views or sum(h * w for h, w in behind) != plan.num_patches:
        return "the maps do not stand for the views"
    first = plan.canvases[0]
    tiles = first.num_views
    if mode == "dynamic":
        return dynamic_problem(height, width, geometry, plan.maps[0])
    if mode == "tiles":
        side = geometry["tile_size"] // geometry["patch_size"]
        has_thumbnail = geometry["thumbnail"] and tiles > 1
        if tiles > geometry["max_tiles"] or len(plan.maps) != tiles + has_thumbnail or set(plan.maps) != {(side, side)}:
            return f"{plan} breaks max_tiles or the thumbnail"
        most = {True: 1.5, False: 7 / 6}[geometry["max_tiles"] < 12] if geometry["aspect_rule"] == "closest" else 2
        shown = 1 / geometry["max_tiles"] <= width / height <= geometry["max_tiles"]
        if shown and factor((first.grid_h, first.grid_w), height, width) > most + 1e-9:
            return f"{tiles} tiles change the aspect ratio by more than {most}"
    if mode == "multi_scale":
        squares = [(scale // geometry["patch_size"],) * 2 for scale in geometry["scales"]]
        last = plan.canvases[-1]
        least = (geometry["scales"][-1] // geometry["scales"][0]) ** 2
        if [(c.grid_h, c.grid_w) for c in plan.canvases[:-1]] != squares[:-1]:
            return "a scale before the last is no square of its size"
        if geometry["last_scale"] == "square" and plan.maps[0] != squares[-1]:
            return "the last scale is no square"
        if geometry["last_scale"] == "dynamic" and not least <= last.num_views <= geometry["max_tiles"]:
            return f"{last.num_views} tiles of the last scale"
    if mode == "fixed" and [side * geometry["patch_size"] for side in plan.maps[0]] != geometry["size"]:
        return "not the fixed size"
    return None


def failures(count: int, seed: int = 0) -> list[str]:
    """Every broken promise over `count` sizes: the plan of the image, of a frame, and of a prompt under a bound.

    Of the placeholders: what pixel shuffle counts is, map by map, a `multiple`² part of the patches the maps have.
    """
    draw, found, recent = random.Random(seed), [], []
    for index, (height, width) in enumerate(sizes(count, seed)):
        geometry = any_geometry(draw)
        where = f"{height} x {width}, {geometry}"
        try:
            plan = plan_picture(height, width, geometry)
            problem = plan_problem(height, width, geometry, plan)
            multiple = geometry["multiple"]
            projector = {"type": "pixel_shuffle", "downsample": multiple}
            placeholders = sum(num_tokens(projector, *grid) for grid in plan.maps)
            if placeholders * multiple**2 != sum(h * w for h, w in plan.maps):
                problem = problem or f"{placeholders} placeholders"
            video = {"max_num_patches": draw.choice([None, 256, 1024])}
            frame = plan_frame(height, width, geometry, video)
            if len(frame.views) != 1 or frame.maps != frame.views or any(s % multiple for s in frame.maps[0]):
                problem = problem or f"a frame is {frame}"
            recent = [*recent, Size(height, width, frames=draw.choice([0, 0, 0, 5]))][-4:]
            if index % 10 == 0:
                problem = problem or prompt_problem(recent, geometry, video, draw)
        except Exception as error:  # noqa: BLE001 - a crash is a failure with a name
            problem = f"{type(error).__name__}: {error}"
        if problem:
            found.append(f"{where}: {problem}")
    return found


def prompt_problem(pictures: list[Size], geometry: dict, video: dict, draw: random.Random) -> str | None:
    """A prompt under a random bound keeps it, shrinks only what it must and says so; or says that nothing fits."""
    whole = plan_prompt(pictures, geometry, video)
    needed = sum(plan.num_patches * size.count for plan, size in zip(whole.plans, pictures))
    bound = max(1, int(needed * draw.uniform(0.05, 1.2)))
    bounded = {**geometry, "max_prompt_patches": bound}
    try:
        planned = plan_prompt(pictures, bounded, video)
    except ValueError as error:
        return None if needed > bound and "raise it" in str(error) else f"refused {bound} of {needed}: {error}"
    total = sum(plan.num_patches * size.count for plan, size in zip(planned.plans, pictures))
    if total > bound:
        return f"{total} patches in a prompt of {bound}"
    if (planned.message is None) != (planned.plans == whole.plans) or (needed <= bound) != (planned.message is None):
        return f"message {planned.message!r} for {needed} of {bound}"
    shrunk = [new.num_patches for new, old in zip(planned.plans, whole.plans) if new != old]
    kept = [old.num_patches for new, old in zip(planned.plans, whole.plans) if new == old]
    fair = 2 * max(shrunk, default=bound) + 4 * geometry["multiple"] ** 2  # of one cap, strips come out much smaller
    if geometry["mode"] == "dynamic" and max(kept, default=0) > fair:
        return f"pictures of {kept} patches stayed, others shrank to {shrunk}"
    return None
