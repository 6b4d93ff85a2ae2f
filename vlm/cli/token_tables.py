"""The tables of `radio-vlm tokens`: one block a file, rows are geometries, columns what projectors make of the patches.

Not a command. Projectors with equal counts everywhere share a column, named by what is left of the patches; a legend
says who they are. So a table stays within 120 columns however many projectors there are.
"""

from collections import Counter
from dataclasses import dataclass

from vlm.cli.tables import text_table
from vlm.cli.token_costs import Cost, Geometry, Projector, Row
from vlm.cli.token_inputs import TokenInput

PROBE = 48  # side of a grid that 2, 3 and 4 divide
MOST_SIZES = 4  # kinds of pages that get a line each


@dataclass(frozen=True)
class Column:
    """Projectors that cost the same; `name` heads the column."""

    name: str
    members: tuple[str, ...]


def columns(choices: list[Projector], rows: list[Row]) -> list[Column]:
    """Projectors in groups of equal costs in all `rows`; those that leave most of the patches first."""
    groups: dict[tuple, list[Projector]] = {}
    for choice in choices:
        costs = [row.costs[choice.name] for row in rows if row.costs]
        key = (share(choice.config), *((c.pages, c.tokens, c.kept, c.error is None) for c in costs))
        groups.setdefault(key, []).append(choice)
    largest = {key[0]: key for key, members in sorted(groups.items(), key=lambda pair: len(pair[1]))}
    found = []
    for key, members in sorted(groups.items(), key=lambda pair: -pair[0][0][1]):
        left = key[0][0]
        is_own = left == "other" or largest[key[0]] != key or len(groups) == 1  # a share names one column only
        found.append(Column(members[0].name if is_own else left, tuple(member.name for member in members)))
    return found


def share(config: dict) -> tuple[str, float]:
    """What is left of a picture's patches: ("1/4", 0.25), ("64", 0.0) for a fixed number; "other" if neither."""
    from projectors.components import num_tokens

    try:
        small, large = (num_tokens(config, side, side) for side in (PROBE, 2 * PROBE))
    except ValueError:
        return "other", 0.0
    if small == large:
        return f"{small} a map", 0.0
    if large == 4 * small:
        parts = PROBE * PROBE / small
        return f"1/{parts:.4g}" if parts > 1 else "all", 1 / parts
    return "other", small / PROBE**2


def legend(found: list[Column]) -> str:
    """Which projectors a column stands for; "" where every column is named after its only one."""
    lines = [(column.name, " · ".join(column.members)) for column in found if column.members != (column.name,)]
    if not lines:
        return ""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:>{width}}  {members}" for name, members in lines)


def block(source: TokenInput, rows: list[Row], found: list[Column], geometries: list[Geometry], rate: float) -> str:
    """The table of one file, and what has to be said below it."""
    head = ("geometry", "resized to", "views", "patches", *(column.name for column in found))
    cells, notes, refused = [], [], {}
    for row, geometry in zip(rows, geometries):
        if row.error:
            cells.append((row.geometry, "–", "", "", *("–" for _ in found)))
            notes.append(f"{row.geometry}: {row.error}")
            continue
        patch = geometry.settings["patch_size"]
        cells += lines(source, row, found, patch, rate)
        if row.message:
            notes.append(f"{row.geometry}: {row.message}")
        for column in found:
            if error := row.costs[column.members[0]].error:
                refused.setdefault(f"{column.name}: {error}", []).append(row.geometry)
    for words, where in refused.items():
        notes.append(words if len(where) == len(rows) else f"{', '.join(where)}, {words}")
    table = text_table(head, cells, right=range(2, len(head)))
    return "\n".join([f"{source.path.name}: {source.about}", table, *notes])


def lines(source: TokenInput, row: Row, found: list[Column], patch: int, rate: float) -> list[tuple]:
    """The lines of one geometry: the whole file, then what each kind of picture in it costs."""
    costs = [row.costs[column.members[0]] for column in found]
    if source.kind == "video":
        return video_lines(row, source.frames, costs, patch, rate)
    counts = Counter(source.sizes)
    several = len(source.sizes) > 1
    made = []
    if several:
        words = f"{len(source.sizes)} pages" + (f" of {len(counts)} sizes" if len(counts) > 1 else "")
        made.append((row.geometry, words, "", number_of(row.patches), *(total_of(cost) for cost in costs)))
    for size in counts if len(counts) <= MOST_SIZES else ():
        first = source.sizes.index(size)
        name = f"  {counts[size]} × {size[1]}×{size[0]}" if several else row.geometry
        one = number_of(row.plans[first].num_patches)
        made.append((name, *picture_words(row.plans[first], patch), one, *(page_of(cost, first) for cost in costs)))
    return made


def video_lines(row: Row, frames: int, costs: list[Cost], patch: int, rate: float) -> list[tuple]:
    """All groups of frames, what pruning leaves of them, and one frame (or tubelet)."""
    words = f"{frames} frame{'' if frames == 1 else 's'}"
    words += f", {row.tubelets} pairs" if row.tubelets != frames else ""
    words += f", mean → {row.groups}" if row.groups != row.tubelets else ""
    made = [(row.geometry, words, "", number_of(row.patches), *(total_of(cost) for cost in costs))]
    if rate:
        kept = ["–" if c.kept is None or c.error else number_of(c.kept) for c in costs]
        made.append((f"  EVS at {rate:g} keeps", "", "", "", *kept))
    one = number_of(row.plans[0].num_patches)
    return [*made, ("  each", *picture_words(row.plans[0], patch), one, *(page_of(cost, 0) for cost in costs))]


def picture_words(plan, patch: int) -> tuple[str, str]:
    """("1536×2048+512²", "12+1"): canvases as width×height in pixels, and the views they are cut into."""
    sizes = [(canvas.grid_w * patch, canvas.grid_h * patch) for canvas in plan.canvases]
    short = [f"{width}²" if width == height and len(sizes) > 1 else f"{width}×{height}" for width, height in sizes]
    return "+".join(short), "+".join(str(canvas.num_views) for canvas in plan.canvases)


def number_of(value: int) -> str:
    return f"{value:,}"


def page_of(cost: Cost, page: int) -> str:
    return "–" if cost.error else number_of(cost.pages[page])


def total_of(cost: Cost) -> str:
    return "–" if cost.error else number_of(cost.tokens)
