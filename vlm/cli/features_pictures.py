"""Pictures that `radio-vlm features` writes: picture beside map, contact sheet and animation of a video.

One patch is one square: maps are enlarged without smoothing. Not a command itself.
"""

import io
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlm.cli.features_encode import LAST, Encoded

GAP, MARGIN, PAPER, INK = 12, 16, (255, 255, 255), (90, 94, 100)


def map_picture(colours) -> Image.Image:
    """uint8 `(h, w, 3)` -> a picture of one pixel a patch."""
    return Image.fromarray(colours.numpy())


def side_by_side(picture: Image.Image, colours, side: int) -> Image.Image:
    """The picture and its map at the same size, the longer side `side` pixels."""
    width, height = fit(picture, side)
    sheet = Image.new("RGB", (2 * width + GAP, height), PAPER)
    sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (0, 0))
    sheet.paste(map_picture(colours).resize((width, height), Image.Resampling.NEAREST), (width + GAP, 0))
    return sheet


def fit(picture: Image.Image, side: int) -> tuple[int, int]:
    """Width and height at which the longer side is `side`; a very thin picture keeps a visible height."""
    scale = side / max(picture.size)
    return tuple(max(8, round(length * scale)) for length in picture.size)


def picture_sheet(done: Encoded) -> Image.Image:
    """The PNG of an image: picture | map of the last layer."""
    panel = side_by_side(done.frames[0], done.colours[LAST][0], side=768)
    sheet = Image.new("RGB", (panel.width + 2 * MARGIN, panel.height + 2 * MARGIN), PAPER)
    sheet.paste(panel, (MARGIN, MARGIN))
    return sheet


def contact_sheet(done: Encoded) -> Image.Image:
    """The PNG of a video: all sampled frames, each beside its map, with its time."""
    panels = [side_by_side(frame, colours, side=240) for frame, colours in zip(done.frames, done.colours[LAST])]
    label, font = 22, ImageFont.load_default(14)
    cell_w, cell_h = panels[0].width + 2 * GAP, panels[0].height + label + GAP
    columns = sheet_columns(len(panels), cell_w / cell_h)
    rows = -(-len(panels) // columns)
    size = (columns * cell_w - 2 * GAP + 2 * MARGIN, rows * cell_h - GAP + 2 * MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (panel, time) in enumerate(zip(panels, done.times)):
        x, y = MARGIN + number % columns * cell_w, MARGIN + number // columns * cell_h
        draw.text((x, y), f"{time:.2f} s", INK, font=font)
        sheet.paste(panel, (x, y + label))
    return sheet


def sheet_columns(cells: int, shape: float) -> int:
    """Columns of a sheet about as wide as a screen, rather with full rows; `shape`: width over height of a cell."""
    wide = math.sqrt(cells * 1.6 / shape)
    near = range(max(1, math.floor(wide * 0.75)), max(1, math.ceil(wide * 1.35)) + 1)
    return min((c for c in near if c <= max(cells, 1)), key=lambda c: (-cells % c / c, abs(c - wide)), default=1)


def write_animation(done: Encoded, path: Path, side: int = 480) -> None:
    """An animated PNG of frame | map, at the speed of the sampled times (at most 2 s a frame), repeated for ever."""
    panels = [side_by_side(frame, colours, side) for frame, colours in zip(done.frames, done.colours[LAST])]
    steps = [later - now for now, later in zip(done.times, done.times[1:])]
    steps = [min(max(step, 0.04), 2.0) for step in [*steps, steps[-1] if steps else 1.0]]
    panels[0].save(
        path, format="PNG", save_all=True, append_images=panels[1:], duration=[1000 * s for s in steps], loop=0
    )


def png_bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def jpeg_bytes(picture: Image.Image, side: int) -> bytes:
    """For the page: a copy of at most `side` pixels a side."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=86)
    return buffer.getvalue()
