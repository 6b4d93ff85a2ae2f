"""The error of a recipe that cannot run, and the checks every section uses."""

import math
from typing import Any


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the fields and the fix."""


def require(condition: bool, message: str) -> None:
    """Raise RecipeError(message) unless `condition`."""
    if not condition:
        raise RecipeError(message)


def choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise RecipeError unless `value` is one of `choices`."""
    require(value in choices, f"{name} = {value!r} is not one of {', '.join(choices)}")


def check_ranges(section: Any, title: str, ranges: dict[str, tuple[str, ...]]) -> None:
    """Raise RecipeError unless the numbers of a section lie where they may; not-a-number and infinity lie nowhere.

    title: name of a field with {} in its place, for the message. ranges: interval as in mathematics, "[0, 1)" or
    "(0, inf)", -> the fields that must lie in it; None (not set) passes, of a list every number counts.
    """
    for interval, names in ranges.items():
        low, high = (float(word) for word in interval[1:-1].split(","))
        for name in names:
            value = getattr(section, name)
            for number in value if isinstance(value, list) else [] if value is None else [value]:
                above = number > low or interval[0] == "[" and number == low
                below = number < high or interval[-1] == "]" and number == high
                key = title.replace("{}", name, 1)
                require(above and below, f"{key} = {value} must be {_in_words(interval, low, high, number)}")


def _in_words(interval: str, low: float, high: float, number: float) -> str:
    words = f"{low:g} or more" if interval[0] == "[" else f"above {low:g}"
    if high < math.inf:
        return f"{words} and {'at most' if interval[-1] == ']' else 'below'} {high:g}"
    return words if math.isfinite(number) else f"a finite number, {words}"
