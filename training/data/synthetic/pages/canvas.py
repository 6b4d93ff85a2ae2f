"""A small page to draw on: fonts, jitter, tints, text placed by its middle. Shared by all kinds of page."""

from __future__ import annotations

import importlib.util
import random
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 96, 128
JITTER = 2  # pixels the whole page moves in x and y; every text moves by up to one more
FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")


@lru_cache(maxsize=1)
def font_folder() -> Path:
    """Where matplotlib keeps the DejaVu fonts (found without importing matplotlib, which takes a while)."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ImportError("drawing pages needs the fonts shipped with matplotlib: pip install 'radio-vlm[documents]'")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@lru_cache(maxsize=64)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a pixel size; basic layout, because shaping is of no use for plain Latin letters and slower."""
    return ImageFont.truetype(str(font_folder() / name), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def char_width(font: ImageFont.FreeTypeFont, char: str) -> float:
    """Advance of one character in pixels."""
    return font.getlength(char)


class Canvas:
    """One page: tint, font and offset are drawn from ``rng`` once, everything else is placed by the page's kind."""

    def __init__(self, rng: random.Random, sizes: tuple[int, ...] = (13, 15)):
        self.rng = rng
        grey = rng.randint(205, 250)
        self.paper = tuple(min(255, grey + rng.randint(-6, 6)) for _ in range(3))
        dark = rng.randint(0, 55)
        self.ink = (dark, dark, dark + rng.randint(0, 30))
        self.faint = tuple(c - rng.randint(45, 80) for c in self.paper)
        self.font = load_font(rng.choice(FONTS), rng.choice(sizes))
        self.dx, self.dy = rng.randint(-JITTER, JITTER), rng.randint(-JITTER, JITTER)
        self.image = Image.new("RGB", (WIDTH, HEIGHT), self.paper)
        self.draw = ImageDraw.Draw(self.image)
        self.marks: list[tuple[str, float, float]] = []  # every character with its middle, for the bases' tasks

    def text(self, x: float, y: float, words: str, anchor: str = "mm", ink: tuple[int, ...] | None = None) -> None:
        """Writes ``words`` at (x, y); anchor as in Pillow ("lm" left middle, "mm" middle, "rm" right middle)."""
        x += self.dx + self.rng.randint(-1, 1)
        y += self.dy + self.rng.randint(-1, 1)
        self.draw.text((x, y), words, font=self.font, fill=ink or self.ink, anchor=anchor)
        widths = [char_width(self.font, char) for char in words]
        left = x - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * sum(widths)
        for char, width in zip(words, widths):
            self.marks.append((char, left + width / 2, y))
            left += width

    def line(self, x0: float, y0: float, x1: float, y1: float, dashed: bool = False) -> None:
        """A horizontal or vertical rule in a faint ink."""
        x0, y0, x1, y1 = x0 + self.dx, y0 + self.dy, x1 + self.dx, y1 + self.dy
        if not dashed:
            self.draw.line((x0, y0, x1, y1), fill=self.faint)
            return
        for x in range(int(x0), int(x1), 4):
            self.draw.line((x, y0, x + 1, y1), fill=self.faint)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: tuple[int, ...] | None = None, outline: bool = True
    ) -> None:
        """A rectangle, filled or framed."""
        corners = (x0 + self.dx, y0 + self.dy, x1 + self.dx, y1 + self.dy)
        self.draw.rectangle(corners, fill=fill, outline=self.faint if outline else None)
