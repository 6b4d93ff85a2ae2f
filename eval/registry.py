"""Names → components, filled by a decorator in each component's own file.

Metrics and tasks are added by adding one file to their folder: `discover` imports every module of a package, so
nothing else has to be edited. A duplicate name is an error, an unknown one lists those that exist.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(ValueError):
    """A task or metric was asked for that nobody registered; the message lists the known ones."""


class Registry(Generic[T]):
    """A small name → component table. `kind` is the noun used in messages ("metric", "task")."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a component under `name`; raises ValueError when the name is taken."""

        def keep(item: T) -> T:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is already registered by {self._items[name]!r}")
            self._items[name] = item
            return item

        return keep

    def get(self, name: str) -> T:
        """The component called `name`; raises UnknownNameError."""
        if name not in self._items:
            near = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.6)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise UnknownNameError(f"unknown {self.kind} {name!r}{meant}; known: {', '.join(self.names()) or '(none)'}")
        return self._items[name]

    def names(self) -> list[str]:
        return sorted(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._items


def discover(package: str, path: list[str]) -> None:
    """Imports every module of `package` (its `__path__` is `path`), so that their decorators run."""
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
