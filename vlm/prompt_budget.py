"""All pictures of a prompt under one hard bound of encoder patches, and the sentence that says how they had to shrink.

The bound is shared evenly: no picture may be larger than a common cap, those that are smaller stay as they are.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from vlm.geometry_fields import filled
from vlm.patch_budget import share
from vlm.picture_plan import PicturePlan, check_area, frame_geometry, plan_frame, plan_picture, single
from vlm.scale_grids import min_last_tiles

ONE_BY_ONE = 24


@dataclass(frozen=True)
class Size:
    """An image of `height` x `width` pixels or, with `frames`, a video of so many frames (or tubelets)."""

    height: int
    width: int
    frames: int = 0

    @property
    def count(self) -> int:
        """How many times the encoder sees it."""
        return max(1, self.frames)


@dataclass(frozen=True)
class PromptPlan:
    """One plan a picture (of a video: that of each of its frames), and how pictures shrank, or None."""

    plans: tuple[PicturePlan, ...]
    message: str | None = None


Planner = Callable[[Size, int | None], PicturePlan]


def plan_prompt(pictures: list[Size], geometry: dict, video: dict | None = None) -> PromptPlan:
    """Plans of all pictures of one prompt within `geometry["max_prompt_patches"]` encoder patches, where that is set.

    Mode "dynamic": the largest common cap on the patches of a picture or frame with which all fit. "tiles" and
    "multi_scale": the largest common `max_tiles`; their frames, and mode "fixed", have one size and never shrink.

    Raises:
        ValueError: even the smallest plans are too many patches; says what to do.
    """
    full = filled(geometry)
    bound = full["max_prompt_patches"]
    for size in pictures:
        check_area(size.height, size.width)
    planner, caps = _dynamic(full, video) if full["mode"] == "dynamic" else _tiled(full, video)
    counts = Counter()
    for size in pictures:
        counts[size] += size.count
    whole = {size: planner(size, None) for size in counts}

    def total(plans: dict[Size, PicturePlan]) -> int:
        return sum(plans[size].num_patches * count for size, count in counts.items())

    if bound is None or total(whole) <= bound:
        return PromptPlan(tuple(whole[size] for size in pictures))
    largest = max(plan.num_patches for plan in whole.values())
    least, most = caps(largest)
    fitting = {size: planner(size, least) for size in counts}
    if total(fitting) > bound:
        raise ValueError(_too_many(pictures, total(fitting), full))
    # Patches are not quite monotone in the cap, so every answer is counted: `least` fits, `most` does not. The last
    # few (all of 12 tiles) are tried one by one from above, which finds the largest whatever the order.
    while most - least > 1:
        middle = most - 1 if most - least <= ONE_BY_ONE else (least + most) // 2
        plans = {size: planner(size, middle) for size in counts}
        if total(plans) <= bound:
            least, fitting = middle, plans
        else:
            most = middle
    plans = tuple(fitting[size] for size in pictures)
    return PromptPlan(plans, _shrunk(pictures, tuple(whole[size] for size in pictures), plans, bound))


def _dynamic(full: dict, video: dict | None) -> tuple[Planner, Callable[[int], tuple[int, int]]]:
    """A planner under a cap of patches, and the caps to search: one that is the smallest, one that changes nothing."""
    of_frames = frame_geometry(full, video)

    def planner(size: Size, cap: int | None) -> PicturePlan:
        own = of_frames if size.frames else full
        if cap is None:
            return plan_picture(size.height, size.width, own)
        facts = (own["patch_size"], own["multiple"], own["min_num_patches"], own["max_num_patches"], cap)
        return single(share(size.height, size.width, *facts))

    return planner, lambda largest: (full["multiple"] ** 2, largest)


def _tiled(full: dict, video: dict | None) -> tuple[Planner, Callable[[int], tuple[int, int]]]:
    """A planner under a cap of tiles (mode "fixed" has none), and the caps to search."""

    def planner(size: Size, cap: int | None) -> PicturePlan:
        if size.frames:
            return plan_frame(size.height, size.width, full, video)
        return plan_picture(size.height, size.width, full if cap is None else {**full, "max_tiles": cap})

    if full["mode"] == "tiles":
        return planner, lambda _: (1, full["max_tiles"])
    if full["mode"] == "multi_scale" and full["last_scale"] == "dynamic":
        return planner, lambda _: (min_last_tiles(full["scales"]), full["max_tiles"])
    return (lambda size, cap: planner(size, None)), lambda _: (0, 1)


def _names(images: int, frames: int) -> str:
    """ "3 pages", "1 page and 8 video frames"."""
    parts = [(images, "page"), (frames, "video frame")]
    return " and ".join(f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in parts if n)


def _count(pictures: list[Size]) -> str:
    return _names(sum(not size.frames for size in pictures), sum(size.frames for size in pictures))


def _shrunk(pictures: list[Size], whole: tuple, plans: tuple, bound: int) -> str:
    """ "12 pages of up to 5,000 patches shrink to at most 1,104 patches each to fit max_prompt_patches=13312"."""
    touched = [(size, old, new) for size, old, new in zip(pictures, whole, plans) if old != new]
    names = _count([size for size, _, _ in touched])
    before = max(old.num_patches for _, old, _ in touched)
    after = max(new.num_patches for _, _, new in touched)
    among = f" (of {_count(pictures)})" if len(touched) < len(pictures) else ""
    one = sum(size.count for size, _, _ in touched) == 1
    return (
        f"{names}{among} of {'' if one else 'up to '}{before:,} patches {'shrinks' if one else 'shrink'} to "
        f"{f'{after:,} patches' if one else f'at most {after:,} patches each'} to fit max_prompt_patches={bound}"
    )


def _too_many(pictures: list[Size], least: int, full: dict) -> str:
    one = sum(size.count for size in pictures) == 1
    smaller = {"fixed": "a smaller size", "tiles": "a smaller tile_size", "multi_scale": "smaller scales"}
    return (
        f"{_count(pictures)} {'needs' if one else 'need'} at least {least:,} patches, more than "
        f"max_prompt_patches={full['max_prompt_patches']}: raise it, or give fewer pages or frames"
        + (f", or {smaller[full['mode']]}" if full["mode"] in smaller else "")
    )
