"""Where mini benchmarks register: the name of the task → a function that writes its copy below a data root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eval.registry import Registry

Writer = Callable[[Path], None]
_minis: Registry[Writer] = Registry("mini benchmark")
mini = _minis.register
mini_names = _minis.names


def write_mini(name: str, root: Path) -> Path:
    """Writes the mini copy for the task `name` below `root`, which is then the `--data-root`; returns `root`."""
    _minis.get(name)(root)
    return root
