"""Mode "dynamic": a grid of the picture's own aspect ratio within a patch budget, as NVIDIA's Nemotron 3 Nano Omni.

The grids are those of transformers' `nemotron_h_omni` (`get_patch_grid_size`), with an answer where that function
divides by zero or grows past its own maximum. `share` is ours: one picture under a cap that is never exceeded.
"""

import math

NO_CAP = 2**62  # a budget no picture reaches


def budget_grid(height: int, width: int, patch: int, multiple: int, low: int, high: int) -> tuple[int, int]:
    """The grid `(grid_h, grid_w)` of `low` to `high` patches (`high` 0: no cap) for a picture of `height` x `width` px.

    Both sides are positive multiples of `multiple`. Aspect ratio: of the picture's own grid (begun patches count) there
    is one scale from which each side differs by at most `multiple` + 1 patches, and `high` holds, as long as the ratio
    of that grid's sides is at most `high / multiple**2`. A longer strip keeps one `multiple` on its thin side and at
    most `high` patches of length, and exceeds the budget where the reference does; `share` never does.

    Where the reference divides by zero (a side of the budgeted grid rounds to nothing) the thin side is one `multiple`
    and the long side takes what the budget leaves. Where a picture that is no such strip would pass `high`, because it
    was grown to `low` or rounded to a large `multiple`, ours gives way and the reference does not.
    """
    high = high or NO_CAP
    # Python's `round` (half to even) of x + 0.5 is part of the reference: 1.0 -> 2 but 2.0 -> 2.
    grid_h, grid_w = own_h, own_w = round(height / patch + 0.5), round(width / patch + 0.5)
    shrink = min(math.sqrt(high / (grid_h * grid_w)), 1.0)
    grid_h, grid_w = math.floor(shrink * grid_h), math.floor(shrink * grid_w)
    if grid_h == 0 or grid_w == 0:
        longest = max(multiple, high // multiple // multiple * multiple)
        grid_h, grid_w = (min(max(g, multiple), longest) // multiple * multiple for g in (grid_h, grid_w))
    if high > low and grid_h * grid_w < low:
        grow = math.sqrt(low / (grid_h * grid_w))
        grown = math.ceil(grow * grid_h), math.ceil(grow * grid_w)
        if grown[0] * grown[1] > high:
            grown = math.floor(grow * grid_h), math.floor(grow * grid_w)
        grid_h, grid_w = grown
    grid_h = _to_multiple(grid_h, grid_w, multiple, high)
    grid_w = _to_multiple(grid_w, grid_h, multiple, high)
    if grid_h * grid_w > high and max(own_h, own_w) * multiple**2 <= high * min(own_h, own_w):
        grid_h, grid_w = _shorten(grid_h, grid_w, multiple, high)
    return grid_h, grid_w


def _shorten(grid_h: int, grid_w: int, multiple: int, high: int) -> tuple[int, int]:
    """The grid with its long side cut to what `high` leaves (at least `multiple**2`)."""
    longest = max(multiple, high // min(grid_h, grid_w) // multiple * multiple)
    return min(grid_h, longest), min(grid_w, longest)


def _to_multiple(side: int, other: int, multiple: int, high: int) -> int:
    """`side` rounded up to a multiple if the budget allows it with `other`, else down, but never to nothing."""
    rest = side % multiple
    if rest == 0:
        return side
    up = side + multiple - rest
    return up if up * other <= high else max(multiple, side - rest)


def share(height: int, width: int, patch: int, multiple: int, low: int, high: int, cap: int) -> tuple[int, int]:
    """`budget_grid` where it has at most `cap` patches, else a grid of the same picture that has (`cap` >= multiple²).

    A picture that `low` had magnified stays as large as `cap` allows, and of a strip the long side gives way.
    """
    grid = budget_grid(height, width, patch, multiple, low, high)
    if grid[0] * grid[1] <= cap:
        return grid
    magnified = max(1, math.isqrt(cap * patch * patch // (height * width)) + 1)
    grid_h, grid_w = budget_grid(height * magnified, width * magnified, patch, multiple, min(low, cap), cap)
    return _shorten(grid_h, grid_w, multiple, cap) if grid_h * grid_w > cap else (grid_h, grid_w)
