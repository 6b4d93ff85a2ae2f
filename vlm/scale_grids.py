"""Mode "multi_scale": the canvases of S2 and of NVILA's Dynamic-S2.

The picture is resized to several scales, each cut into views of the first scale's size. All scales but the last are
squares. The last is a square too (S2) or, in Dynamic-S2, the arrangement of tiles closest to the picture's aspect
ratio, with as many tiles as its square would have or more. Their features are resized to the last and concatenated on
channels, so the projector sees one map.
"""

from vlm.tile_grids import closest


def min_last_tiles(scales: list[int]) -> int:
    """Tiles of the last scale as a square: the fewest Dynamic-S2 uses."""
    return (scales[-1] // scales[0]) ** 2


def scale_grids(height: int, width: int, scales: list[int], last_scale: str, max_tiles: int) -> list[tuple[int, int]]:
    """`(rows, cols)` of views of every scale, smallest first.."""
    sides = [scale // scales[0] for scale in scales]
    last = (sides[-1], sides[-1])
    if last_scale == "dynamic":
        last = closest(height, width, scales[0], max_tiles, min_last_tiles(scales))
    return [*((side, side) for side in sides[:-1]), last]
