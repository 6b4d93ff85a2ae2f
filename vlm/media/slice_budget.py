"""How many slices of a volume, and how large, fit into a budget of tokens.

Tokens are counted by whoever will spend them: a function (height, width) -> tokens, such as a processor's
`num_image_tokens` or `token_counter(geometry, projector)`. The size shrinks first, down to `MIN_SIZE`; then slices
are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vlm.errors import SampleError
from vlm.media.slices import montage_columns, shown_size
from vlm.media.volume import Volume

LAYOUTS = ("slices", "neighbours", "montage")
MIN_SIZE = 224  # a montage may shrink to half of it
STEP = 32


@dataclass(frozen=True)
class SlicePlan:
    """`count` slices whose longer side is `size` pixels (None: their own); `tokens` in all; pictures in the prompt."""

    count: int
    size: int | None
    tokens: int
    pictures: int


def token_counter(geometry: dict, projector: dict) -> Callable[[int, int], int]:
    """(height, width) -> tokens under a geometry (`vlm.geometry`) and a projector's settings."""
    from projectors.components import num_tokens
    from vlm.geometry import check_geometry, plan_picture

    full = check_geometry(geometry)
    return lambda height, width: sum(num_tokens(projector, *grid) for grid in plan_picture(height, width, full).maps)


def plan_slices(
    volume: Volume,
    count: int,
    axis: str = "axial",
    layout: str = "slices",
    max_tokens: int | None = None,
    num_tokens: Callable[[int, int], int] | None = None,
) -> SlicePlan:
    """The largest pictures of at most `count` slices within `max_tokens`.

    `layout`: "slices" and "neighbours" (each slice a picture), "montage" (all in one).

    Raises SampleError: bad_layout, bad_count, no_counter (a budget without a way to count), over_budget (not even one
    slice of `MIN_SIZE` fits).
    """
    if layout not in LAYOUTS:
        raise SampleError(f"layout {layout!r:.40} is not one of {', '.join(LAYOUTS)}", reason="bad_layout")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise SampleError(f"{count!r:.20} slices cannot be shown: give a number from 1 on", reason="bad_count")
    own = shown_size(volume, axis)
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1):
        raise SampleError(f"max_tokens must be a number from 1 on, not {max_tokens!r:.20}", reason="over_budget")
    if max_tokens is None:
        tokens = _cost(own, count, layout, num_tokens) if num_tokens else 0
        return SlicePlan(count, None, tokens, 1 if layout == "montage" else count)
    if num_tokens is None:
        message = "max_tokens needs a model's processor to count with; give slices and size instead"
        raise SampleError(message, reason="no_counter")
    least = MIN_SIZE // 2 if layout == "montage" else MIN_SIZE
    sizes = [None, *range((max(own) - 1) // STEP * STEP, least - 1, -STEP)]
    for wanted in range(count, 0, -1):
        for size in sizes:
            tokens = _cost(own if size is None else shown_size(volume, axis, size), wanted, layout, num_tokens)
            if tokens <= max_tokens:
                return SlicePlan(wanted, size, tokens, 1 if layout == "montage" else wanted)
    fewest = min(_cost(own if s is None else shown_size(volume, axis, s), 1, layout, num_tokens) for s in sizes)
    message = f"one slice needs at least {fewest} tokens, more than max_tokens={max_tokens}"
    raise SampleError(message, reason="over_budget")


def _cost(size: tuple[int, int], count: int, layout: str, num_tokens: Callable[[int, int], int]) -> int:
    height, width = size
    if layout != "montage":
        return count * num_tokens(height, width)
    columns = montage_columns(count, height, width)
    return num_tokens(height * -(-count // columns), width * columns)
