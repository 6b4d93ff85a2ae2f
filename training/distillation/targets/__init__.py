"""What a student is held to, made from the teacher's logits; one file each, whose name is that of `distill.targets`.

A file has one function, `targets(logits, labels, temperature)`:
    logits: (N, V) fp32, the teacher's. labels: (N,) the right tokens. temperature: of `distill`.
    Returns `(log_targets, asked)`: (N, V) log-probabilities, and (N,) bool where the divergence is asked, None for all.
It runs without gradients, on a few hundred rows at a time.
"""

import importlib
import pkgutil
from collections.abc import Callable


def target_names() -> tuple[str, ...]:
    """The names of all makers; nothing is imported."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(__path__)))


def target_maker(name: str) -> Callable:
    """The function of the file `name`."""
    return importlib.import_module(f"{__name__}.{name}").targets
