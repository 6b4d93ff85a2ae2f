"""Mode "tiles": which arrangement of square tiles a picture is resized to.

"closest" is InternVL's rule, used by Nemotron Nano V2 VL; "area_weighted" is that of Megatron-LM's
`--use-area-weighted-aspect-ratio`, used by the 8B model. Comparisons are in floating point, as theirs are: ties decide.
"""

from functools import lru_cache

ASPECT_RULES = ("closest", "area_weighted")


@lru_cache(maxsize=256)
def arrangements(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """All `(rows, cols)` with `min_tiles` to `max_tiles` tiles, few tiles first, then few columns first."""
    columns = range(1, max_tiles + 1)
    found = [(rows, cols) for cols in columns for rows in range(1, max_tiles // cols + 1) if rows * cols >= min_tiles]
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))


def closest(height: int, width: int, tile_size: int, max_tiles: int, min_tiles: int = 1) -> tuple[int, int]:
    """`(rows, cols)` whose aspect ratio is closest to the picture's; of equals the one with more tiles, as long as the
    picture has more than half of its pixels.

    The aspect ratio changes by what the closest arrangement leaves: with 12 tiles, of a picture from 1 : 12 to 12 : 1,
    by a factor of at most 7/6 (with 9 to 12, as Dynamic-S2 has, 2); a longer strip is squeezed to 12 : 1.
    """
    aspect, area = width / height, height * width
    best, best_difference = (1, 1), float("inf")
    for rows, cols in arrangements(min_tiles, max_tiles):
        difference = abs(aspect - cols / rows)
        fills = area > 0.5 * tile_size * tile_size * rows * cols
        if difference < best_difference or (difference == best_difference and fills):
            best, best_difference = (rows, cols), difference
    return best


def area_weighted(height: int, width: int, tile_size: int, max_tiles: int, min_tiles: int = 1) -> tuple[int, int]:
    """`(rows, cols)` with the largest min(tile pixels / picture pixels, 0.6) * likeness of the aspect ratios (at most
    1); of equals the first, which has the fewest tiles. Between 1 : `max_tiles` and `max_tiles` : 1 the aspect ratio
    changes by a factor of at most 2: tiles that cover 0.6 of the pixels are worth no more if there are more of them."""
    aspect, area = width / height, height * width
    best, best_score = (1, 1), float("-inf")
    for rows, cols in arrangements(min_tiles, max_tiles):
        ratio = cols / rows
        score = min(rows * cols * tile_size * tile_size / area, 0.6) * min(ratio / aspect, aspect / ratio)
        if score > best_score:
            best, best_score = (rows, cols), score
    return best


def tile_grid(height: int, width: int, tile_size: int, max_tiles: int, rule: str = "closest") -> tuple[int, int]:
    """`(rows, cols)` of the canvas, at most `max_tiles` tiles, by the named rule."""
    return (area_weighted if rule == "area_weighted" else closest)(height, width, tile_size, max_tiles)
