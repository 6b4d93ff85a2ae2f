"""TEDS: worked values of PubTabNet's definition, its readable twins, and tables that no model should have written."""

import functools
import random
import time

import numpy as np
import pytest

from eval.metrics import get_metric
from eval.metrics import teds as module
from eval.metrics._table_tree import read_table
from eval.metrics._tree_distance import cell_distances, tree_distance
from eval.metrics.anls import levenshtein

teds, teds_structure = get_metric("teds"), get_metric("teds_structure")
GOLD = (
    "<table><thead><tr><td>Age</td><td>n</td></tr></thead>"
    "<tbody><tr><td><b>old</b></td><td>12</td></tr><tr><td colspan=2>none</td></tr></tbody></table>"
)  # 11 elements below the root: thead, tbody, 3 tr, 5 td, b


@pytest.mark.parametrize(
    "change, distance",
    [
        (("", ""), 0),
        (("<td>12</td>", "<td>13</td>"), 1 / 2),  # half of the cell's letters
        (("<b>old</b>", "old"), 2 / 5),  # <b> and </b> are one symbol each; one element less to count, too
        (("<td>n</td>", ""), 1),
        (("colspan=2", ""), 1),
        (("<tr><td colspan=2>none</td></tr>", ""), 2),
        (("</table>", "<tr><td>x</td></tr></table>"), 2),  # 13 elements now
        (("<thead>", "<tbody>"), 1),
        (("<td>Age</td>", "<th>Age</th>"), 1),
    ],
)
def test_worked_values(change, distance):
    changed = GOLD.replace(*change) if change[0] else GOLD
    nodes = 13 if "x</td>" in changed else 11
    assert teds(changed, [GOLD]) == pytest.approx(1 - distance / nodes)


def test_structure_only_forgives_contents():
    changed = GOLD.replace("12", "a long mistake").replace("Age", "")
    assert teds(changed, [GOLD]) < teds_structure(changed, [GOLD]) == 1.0
    assert teds_structure(GOLD.replace("<td>n</td>", ""), [GOLD]) == pytest.approx(1 - 1 / 11)


def test_header_cells_can_be_read_as_cells():
    headers = GOLD.replace("<td>Age</td><td>n</td>", "<th>Age</th><th>n</th>")
    assert teds(headers, [GOLD]) < teds(headers, [GOLD], th_is_td=True) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        f"Here is the table:\n```html\n{GOLD}\n```\nDone.",
        f"<html><body>{GOLD}</body></html>",
        GOLD.replace("</td>", "").replace("</tr>", "").replace("</thead>", "").replace("</tbody></table>", ""),
        GOLD.replace("td", "TD").replace("colspan=2", "colspan = '2' class=\"x\""),
        GOLD.replace("none", "no<!-- > a comment -->ne"),
        GOLD.replace("none", "n&#111;ne"),
    ],
)
def test_ways_to_write_one_table(text):
    assert teds(text, [GOLD]) == 1.0


@pytest.mark.parametrize(
    "text", ["", "no table", "<tr><td>a</td></tr>", "<table", "<![foo", "<!--<table>", "&lt;table&gt;"]
)
def test_no_table_is_zero(text):
    assert teds(text, [GOLD]) == teds(GOLD, [text]) == 0.0


def test_best_reference_and_empty_tables():
    assert teds(GOLD, ["<table></table>", GOLD]) == teds("<table></table>", "<table>") == 1.0
    assert teds(GOLD, []) == 0.0
    assert teds("<table></table>", [GOLD]) == pytest.approx(1 / 11)  # <b> is counted, but is no node: PubTabNet's quirk


@pytest.mark.parametrize("span", ["abc", "", "-1", "9" * 400])
def test_bad_spans_do_not_raise(span):
    assert 0.9 < teds(GOLD.replace("colspan=2", f"colspan='{span}'"), [GOLD]) < 1.0


@pytest.mark.parametrize(
    "text",
    ["<table>" * 50_000, "<table><td>" + "x" * 500_000, "<table>" + "<div><p></p>" * 700, "<table>" + "<a " * 30_000]
    + ["<!--" * 50_000, "<table><td>" + "<b>" * 50_000, "<" * 100_000, "<table" + " a" * 50_000, "<td>" * 50_000],
    ids=lambda text: text[:20],
)
def test_endless_tables_end(text):
    start = time.monotonic()
    assert teds(text, ["<table>" + "<div><p></p>" * 700]) == 0.0
    assert time.monotonic() - start < 10  # generous: some take minutes without the bounds


def test_the_bounds_are_said(caplog):
    teds("<table><tr>" + "<td>a" * 2000, [GOLD])
    assert "more than 1500 nodes or 20000 letters scores 0.0" in caplog.text


def slow_distance(a, b, rename):
    """Edit distance of ordered forests by its definition: look at the last root of either, memory for repeats."""

    @functools.cache
    def of(x, y):
        if not x or not y:
            return float(sum(size(t) for t in x + y))
        (kids_x, label_x), (kids_y, label_y) = x[-1], y[-1]
        return min(
            of(x[:-1] + kids_x, y) + 1,
            of(x, y[:-1] + kids_y) + 1,
            of(x[:-1], y[:-1]) + of(kids_x, kids_y) + rename[label_x][label_y],
        )

    return of((a,), (b,))


def size(tree):
    return 1 + sum(size(kid) for kid in tree[0])


def random_tree(rng, nodes):
    """(tree, leftmost): a nested tuple (children, post-order place), and the same for the fast path."""
    parents = [rng.randrange(max(0, i - 4), i) for i in range(1, nodes)]
    leftmost = []

    def build(node):
        first = len(leftmost)
        kids = tuple(build(child) for child in range(1, nodes) if parents[child - 1] == node)
        leftmost.append(first)
        return kids, len(leftmost) - 1

    return build(0), leftmost


def test_tree_distance_agrees_with_its_definition():
    rng = random.Random(0)
    for _ in range(150):
        (a, left_a), (b, left_b) = (random_tree(rng, rng.randrange(1, 8)) for _ in "ab")
        rename = np.array([[rng.choice([0.0, 0.25, 0.7, 1.0]) for _ in left_b] for _ in left_a])
        assert tree_distance(left_a, left_b, rename) == pytest.approx(slow_distance(a, b, rename), abs=1e-12)


def test_cell_distances_agree_with_levenshtein():
    rng = random.Random(0)
    cells = ["".join(rng.choices("abc", k=rng.randrange(7))) for _ in range(30)]
    fast = cell_distances([tuple(x) for x in cells], [tuple(y) for y in cells[:20]])
    slow = [[levenshtein(x, y) / max(len(x), len(y), 1) for y in cells[:20]] for x in cells]
    assert np.array_equal(fast, slow)


def test_a_table_is_read_in_post_order():
    tree = read_table("<table><tr><td>a<i>b</i></td><td rowspan=3></td></tr></table>")
    assert tree.kinds == [("td", 1, 1), ("td", 1, 3), ("tr", 1, 1), ("table", 1, 1)]
    assert tree.contents == [("a", "<i>", "b", "</i>"), (), (), ()]
    assert (tree.leftmost, tree.count) == ([0, 1, 0, 0], 4)
    assert module.similarity(tree, tree) == 1.0
