"""The pictures of a volume for a prompt, with a sentence about it and a label for each: layout, slices, window, budget.

Labels count slices from 1, from the feet, the back or the patient's left on.
"""

from collections.abc import Callable, Sequence

from PIL import Image

from vlm.errors import SampleError
from vlm.media.modality import MODALITIES
from vlm.media.slice_budget import plan_slices
from vlm.media.slices import (
    MAX_SIDE,
    axis_number,
    choose_slices,
    choose_window,
    montage,
    montage_columns,
    neighbour_image,
    shown_size,
    slice_image,
    take_slice,
)
from vlm.media.volume import Volume

MAX_SLICES = 1024


def volume_pictures(
    volume: Volume,
    slices: int | Sequence[int] = 8,
    axis: str = "axial",
    layout: str = "slices",
    window=None,
    size: int | None = None,
    max_tokens: int | None = None,
    num_tokens: Callable[[int, int], int] | None = None,
    mask=None,
    path=None,
) -> tuple[str, list[tuple[str, Image.Image]]]:
    """(a sentence, [(label, RGB picture)]).

    Args:
        slices: How many (evenly spaced, or with `mask` (X, Y, Z) those that show most of it), or their numbers from 1.
        layout: "slices"; "neighbours": the slices beside each as red and blue; "montage": all in one picture.
        size: Longer side in pixels; with `max_tokens` it is chosen.

    Raises SampleError: those of `vlm.media.slices`, `vlm.media.slice_budget` and `vlm.media.windows`.
    """
    total = volume.array.shape[axis_number(axis)]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 16 <= size <= MAX_SIDE):
        raise SampleError(f"size {size!r:.20} is not between 16 and {MAX_SIDE}", path=path, reason="bad_size")
    if size is not None and max_tokens is not None:
        raise SampleError("size and max_tokens: max_tokens chooses the size; give one of them", reason="bad_size")
    named = None if isinstance(slices, int) else _numbers(volume, slices, axis)
    count = len(named) if named else slices
    if isinstance(count, int) and count > MAX_SLICES:
        raise SampleError(f"{count} slices are more than {MAX_SLICES}", path=path, reason="bad_count")
    indices = named or choose_slices(volume, count, axis, mask)
    plan = plan_slices(volume, len(indices), axis, layout, max_tokens, num_tokens)
    if plan.count < len(indices):
        if named:
            message = f"the {len(named)} slices asked for do not fit into max_tokens={max_tokens}: {plan.count} would"
            raise SampleError(message, path=path, reason="over_budget")
        indices = choose_slices(volume, plan.count, axis, mask)
    size = plan.size or size
    chosen, how = choose_window(volume, window, path)
    draw = neighbour_image if layout == "neighbours" else slice_image
    pictures = [draw(volume, index, axis, chosen, size) for index in indices]
    apart = volume.spacing[axis_number(axis)]
    what = MODALITIES[volume.modality] if volume.modality else "Image"
    if volume.modality == "MR" and volume.sequence:
        what = f"{what} ({volume.sequence})"
    words = f"{what} volume of {total} {axis} slices, {apart:.3g} mm apart, {how}."
    numbers = [index + 1 for index in indices]
    if layout == "montage":
        listed = ", ".join(map(str, numbers))
        return words, [(f"Slices {listed} of {total}, row by row", montage(pictures))]
    return words, [(f"Slice {number} of {total}", picture) for number, picture in zip(numbers, pictures)]


def picture_sizes(
    volume: Volume,
    slices: int | Sequence[int] = 8,
    axis: str = "axial",
    layout: str = "slices",
    size: int | None = None,
    max_tokens: int | None = None,
    num_tokens: Callable[[int, int], int] | None = None,
) -> list[tuple[int, int]]:
    """(height, width) of what `volume_pictures` makes, from the shape alone (of slices at the ends that show nothing
    it may leave out some). Raises SampleError as it does.
    """
    total = volume.array.shape[axis_number(axis)]
    count = min(slices, total) if isinstance(slices, int) else len(_numbers(volume, slices, axis))
    plan = plan_slices(volume, count, axis, layout, max_tokens, num_tokens)
    height, width = shown_size(volume, axis, plan.size or size)
    if layout == "montage":
        columns = montage_columns(plan.count, height, width)
        return [(height * -(-plan.count // columns), width * columns)]
    return [(height, width)] * plan.count


def _numbers(volume: Volume, slices, axis: str) -> list[int]:
    """Numbers from 1 -> indices. Raises SampleError: bad_count, bad_slice."""
    try:
        wanted = list(slices)
    except TypeError:
        wanted = []
    if not wanted or any(isinstance(n, bool) or not isinstance(n, int) for n in wanted) or len(wanted) > MAX_SLICES:
        message = f"slices {slices!r:.60} are neither how many nor a list of numbers from 1"
        raise SampleError(message, reason="bad_count")
    for number in wanted:
        if number < 1:
            raise SampleError(f"slice {number}: slices count from 1", reason="bad_slice")
        take_slice(volume, number - 1, axis)
    return [number - 1 for number in wanted]
