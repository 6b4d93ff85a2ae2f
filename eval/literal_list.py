"""Lists that a benchmark's table keeps as text ("['a', 'b']"): read, never run."""

from __future__ import annotations

import ast
from typing import Any


def literal_list(text: Any, what: str) -> list[Any]:
    """The list written in `text`. Raises ValueError beginning with `what` ("options are") for anything else."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise ValueError(f"{what} not the text of a list: {text!r:.80}")
    return value
