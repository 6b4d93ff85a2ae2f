"""Kinds of page. A kind draws fields on a canvas in one of its layouts; adding a kind is adding one file here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.data.synthetic.pages.canvas import Canvas

Fields = list[tuple[str, str]]  # (label, value) in reading order
DrawFunction = Callable[[Canvas, Fields], None]


@dataclass(frozen=True)
class Layout:
    """One way a kind looks: how many fields it shows, at which font sizes, and the function that draws them."""

    kind: str
    name: str
    fields: int
    draw: DrawFunction
    sizes: tuple[int, ...] = (13, 15)


LAYOUTS: dict[str, list[Layout]] = {}


def register_layout(
    kind: str, name: str, fields: int, sizes: tuple[int, ...] = (13, 15)
) -> Callable[[DrawFunction], DrawFunction]:
    """Decorator that files a drawing function as one layout of ``kind``."""

    def decorate(draw: DrawFunction) -> DrawFunction:
        layouts = LAYOUTS.setdefault(kind, [])
        if any(layout.name == name for layout in layouts):
            raise ValueError(f"kind {kind!r} has a layout named {name!r} already")
        layouts.append(Layout(kind, name, fields, draw, sizes))
        return draw

    return decorate


def known_layouts() -> dict[str, list[Layout]]:
    """Kind → its layouts, after importing every file of this folder."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{package}.{module.name}")
    return dict(sorted(LAYOUTS.items()))
