"""Which picture sizes an encoder takes: patches, and windows of patches, must divide both sides."""

from typing import NamedTuple


class Resolution(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


def nearest_size(height: int, width: int, step: int) -> Resolution:
    """The multiples of `step` nearest to a size in pixels, at least one each; halves round to the even multiple."""
    return Resolution(*(max(round(side / step) * step, step) for side in (height, width)))


def check_size(height: int, width: int, patch_size: int, window: int | None) -> None:
    """Raises ValueError, naming the nearest size that fits, unless both sides are multiples of patch x window."""
    step = patch_size * (window or 1)
    if height and width and not height % step and not width % step:
        return
    cause = f"patch_size {patch_size}" + (f" x vitdet_window_size {window}" if window else "")
    nearest = nearest_size(height, width, step)
    raise ValueError(
        f"a picture of {height} x {width} pixels does not fit: both sides must be multiples of {step} ({cause}); "
        f"the nearest size is {nearest.height} x {nearest.width}"
    )
