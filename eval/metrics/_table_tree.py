"""An HTML table as the tree that TEDS compares, read from whatever a model wrote in time linear in its length.

End tags that HTML lets one omit (`</td>`, `</tr>`, `</tbody>`) are supplied; text before and after the first table,
such as a Markdown fence, is ignored; a `<` that starts no tag is a letter. Own reader, since the standard library's
takes minutes for a model that repeats `<a <a <a`. Nothing here recurses, so deep nesting is no danger.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_SECTIONS = ("thead", "tbody", "tfoot")
_CLOSED_BY = {"td": ("td", "th"), "th": ("td", "th"), "tr": ("tr",), **dict.fromkeys(_SECTIONS, (*_SECTIONS, "tr"))}
_MARKUP = re.compile(r"<(?P<end>/?)(?P<tag>[A-Za-z][^\s<>/]{0,30})(?P<rest>[^<>]*)>|<!--|<[!?][^<>]*>")
_SPANS = {name: re.compile(rf"(?<![\w-]){name}\s*=\s*[\"']?\s*(\d{{1,9}})", re.I) for name in ("colspan", "rowspan")}


@dataclass
class TableTree:
    """Nodes in post-order; the root (`table`) comes last."""

    kinds: list[tuple[str, int, int]] = field(default_factory=list)
    """(tag, colspan, rowspan); spans are 1 except for cells."""
    contents: list[tuple[str, ...]] = field(default_factory=list)
    """Symbols in a cell: letters, and whole tags such as `<b>` and `</b>`; empty for other nodes."""
    leftmost: list[int] = field(default_factory=list)
    """Place of the leftmost leaf below each node (the node's own for a leaf)."""
    count: int = 0
    """Elements below the root, those inside cells included, as PubTabNet counts."""


def read_table(
    text: str, structure_only: bool = False, th_is_td: bool = False, max_nodes: int | None = None
) -> TableTree | None:
    """The first table in `text`, None if there is none. Reading stops once it has more than `max_nodes` elements."""
    reader = _Reader(structure_only, th_is_td, max_nodes)
    place = 0
    while not reader.done and (match := _MARKUP.search(text, place)):
        reader.text(text[place : match.start()])
        place = match.end()
        tag = (match["tag"] or "").lower()
        if match[0] == "<!--":
            place = text.find("-->", place) + 3
            if place < 3:  # never closed: all the rest is comment
                break
        elif tag and match["end"]:
            reader.end(tag)
        elif tag:
            reader.start(tag, match["rest"])
            if match["rest"].endswith("/") and tag not in VOID:
                reader.end(tag)
    else:
        reader.text(text[place:])
    reader.end_to(0)
    return reader.tree if reader.tree.kinds else None


class _Reader:
    """Takes tags and text as they come and builds the tree of the first table."""

    def __init__(self, structure_only: bool, th_is_td: bool, max_nodes: int | None) -> None:
        self.tree = TableTree()
        self.structure_only, self.th_is_td, self.max_nodes = structure_only, th_is_td, max_nodes
        self.open: list[tuple[str, tuple[str, int, int], int]] = []  # (tag, kind, place of the first node below)
        self.cell: int | None = None  # place of the open cell in `open`; what is inside it is content
        self.content: list[str] = []
        self.done = False

    def start(self, tag: str, attributes: str) -> None:
        if tag == "th" and self.th_is_td:
            tag = "td"
        if not self.open and tag != "table":
            return
        if self.open:
            self.end_to(self.outermost(_CLOSED_BY.get(tag, ())))
            self.tree.count += 1
        if self.max_nodes is not None and self.tree.count > self.max_nodes:
            self.done = True
            return
        spans = [_span(attributes, name) if tag == "td" else 1 for name in ("colspan", "rowspan")]
        self.open.append((tag, (tag, *spans), len(self.tree.kinds)))
        if self.cell is not None:
            self.content.append(f"<{tag}>")
        elif tag == "td":
            self.cell, self.content = len(self.open) - 1, []
        if tag in VOID:
            self.end_to(len(self.open) - 1)

    def end(self, tag: str) -> None:
        tag = "td" if tag == "th" and self.th_is_td else tag
        if tag == "table":
            self.end_to(max((i for i, entry in enumerate(self.open) if entry[0] == "table"), default=len(self.open)))
        elif tag not in VOID:
            self.end_to(self.outermost((tag,), innermost=True))

    def text(self, text: str) -> None:
        if self.cell is not None:
            self.content.extend(html.unescape(text))

    def outermost(self, tags: tuple[str, ...], innermost: bool = False) -> int:
        """Place of the open element among `tags` in the table being read now; `len(open)` if there is none."""
        found = len(self.open)
        for place in range(len(self.open) - 1, -1, -1):
            tag = self.open[place][0]
            if tag in tags:
                found = place
                if innermost:
                    break
            if tag == "table":
                break
        return found

    def end_to(self, place: int) -> None:
        """Ends all open elements from `place` on, the innermost first."""
        while len(self.open) > place:
            tag, kind, first = self.open.pop()
            if self.cell is not None and len(self.open) > self.cell:
                if tag != "unk":
                    self.content.append(f"</{tag}>")
                continue
            self.tree.kinds.append(kind)
            self.tree.contents.append(tuple(self.content) if self.cell is not None and not self.structure_only else ())
            self.tree.leftmost.append(first)
            self.cell = None
            self.done = self.done or not self.open


def _span(attributes: str, name: str) -> int:
    """The span, 1 if it is absent or no number."""
    match = _SPANS[name].search(attributes)
    return int(match[1]) if match else 1
