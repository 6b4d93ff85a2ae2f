"""The error of a recipe that cannot run, and the checks every section uses."""


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the fields and the fix."""


def require(condition: bool, message: str) -> None:
    """Raise RecipeError(message) unless `condition`."""
    if not condition:
        raise RecipeError(message)


def choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise RecipeError unless `value` is one of `choices`."""
    require(value in choices, f"{name} = {value!r} is not one of {', '.join(choices)}")
