"""How an image or a frame becomes a patch grid: pure functions, the one place where sizes are decided.

The processor resizes to what `plan_image` answers and the model checks the grids it is given against the same rules, so
placeholders and features cannot disagree (swapped sides, rounding of an aspect ratio, a size nobody thought of).
"dynamic" keeps the aspect ratio within a patch budget as NVIDIA's Nemotron Omni does; "fixed" resizes to one size.
"""

import math

MODES = ("dynamic", "fixed")
DEFAULT_GEOMETRY = {
    "mode": "dynamic",
    "patch_size": 16,
    "multiple": 2,
    "min_num_patches": 1024,
    "max_num_patches": 13312,
}


def check_geometry(geometry: dict) -> dict:
    """`geometry` with defaults filled in and checked.

    Raises:
        ValueError: naming the field, its value and the fix.
    """
    unknown = set(geometry) - set(DEFAULT_GEOMETRY) - {"size"}
    if unknown:
        raise ValueError(f"unknown geometry fields {sorted(unknown)}; known: {sorted({*DEFAULT_GEOMETRY, 'size'})}")
    mode = geometry.get("mode", "dynamic")
    if mode not in MODES:
        raise ValueError(f"geometry mode {mode!r} is unknown; known: {', '.join(MODES)}")
    full = {"mode": mode, "patch_size": geometry.get("patch_size", 16), "multiple": geometry.get("multiple", 2)}
    if full["patch_size"] < 1 or full["multiple"] < 1:
        raise ValueError(f"geometry patch_size={full['patch_size']} and multiple={full['multiple']} must be at least 1")
    if mode == "fixed":
        size = geometry.get("size")
        side = full["patch_size"] * full["multiple"]
        if size is None or len(size) != 2 or any(s < side or s % side for s in size):
            raise ValueError(
                f"geometry size={size} with mode 'fixed' must be [height, width] in pixels, both positive multiples of "
                f"patch_size * multiple = {side}"
            )
        return {**full, "size": [int(s) for s in size]}
    for key in ("min_num_patches", "max_num_patches"):
        value = geometry.get(key)
        full[key] = int(DEFAULT_GEOMETRY[key] if value is None else value)
    smallest, low, high = full["multiple"] ** 2, full["min_num_patches"], full["max_num_patches"]
    if high and (high < low or high < smallest):
        raise ValueError(
            f"geometry max_num_patches={high} must be 0 (no cap) or at least min_num_patches={low} and "
            f"multiple**2={smallest}"
        )
    return full


def plan_image(height: int, width: int, geometry: dict) -> tuple[int, int]:
    """The patch grid `(grid_h, grid_w)` an image of `height` x `width` pixels is resized to.

    Both sides are positive multiples of `geometry["multiple"]`, whatever the size or aspect ratio (>= 1 x 1). In mode
    "dynamic" the grid is that of transformers' `nemotron_h_omni` (`get_patch_grid_size`); where that function divides
    by zero (a strip so thin that one side of the budgeted grid rounds to nothing) the thin side is one `multiple` and
    the long side takes what the budget leaves.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} x {width} pixels has no area")
    patch, multiple = geometry.get("patch_size", 16), geometry.get("multiple", 2)
    if geometry.get("mode", "dynamic") == "fixed":
        size_h, size_w = geometry["size"]
        return size_h // patch, size_w // patch
    low = geometry.get("min_num_patches", DEFAULT_GEOMETRY["min_num_patches"])
    # no cap: a budget no image reaches
    high = geometry.get("max_num_patches", DEFAULT_GEOMETRY["max_num_patches"]) or 2**62

    # Python's `round` (half to even) of x + 0.5 is part of the reference: 1.0 -> 2 but 2.0 -> 2.
    grid_h, grid_w = round(height / patch + 0.5), round(width / patch + 0.5)
    shrink = min(math.sqrt(high / (grid_h * grid_w)), 1.0)
    grid_h, grid_w = math.floor(shrink * grid_h), math.floor(shrink * grid_w)
    if grid_h == 0 or grid_w == 0:
        longest = max(multiple, high // multiple // multiple * multiple)
        grid_h, grid_w = (min(max(g, multiple), longest) // multiple * multiple for g in (grid_h, grid_w))
    if high > low and grid_h * grid_w < low:
        grow = math.sqrt(low / (grid_h * grid_w))
        grid_h, grid_w = math.ceil(grow * grid_h), math.ceil(grow * grid_w)
    grid_h = _to_multiple(grid_h, grid_w, multiple, high)
    grid_w = _to_multiple(grid_w, grid_h, multiple, high)
    return grid_h, grid_w


def _to_multiple(side: int, other: int, multiple: int, high: int) -> int:
    """`side` rounded up to a multiple if the budget allows it with `other`, else down, but never to nothing."""
    rest = side % multiple
    if rest == 0:
        return side
    up = side + multiple - rest
    return up if up * other <= high else max(multiple, side - rest)


def plan_frame(height: int, width: int, geometry: dict, video: dict | None = None) -> tuple[int, int]:
    """The patch grid of one video frame: `plan_image` under the smaller budget `video["max_num_patches"]`."""
    budget = (video or {}).get("max_num_patches")
    if not budget or geometry.get("mode", "dynamic") == "fixed":
        return plan_image(height, width, geometry)
    low = geometry.get("min_num_patches", DEFAULT_GEOMETRY["min_num_patches"])
    return plan_image(height, width, {**geometry, "max_num_patches": budget, "min_num_patches": min(low, budget)})
