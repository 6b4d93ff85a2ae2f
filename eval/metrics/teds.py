"""TEDS, tree-edit-distance similarity of HTML tables (Zhong et al., ECCV 2020), and its structure-only form TEDS-S.

1 - distance / nodes of the larger table, following PubTabNet's `src/metric.py`: a node is (tag, colspan, rowspan, cell
content), inserting or deleting costs 1, renaming costs 1 or, between cells of equal spans, the normalised Levenshtein
distance of their contents, in which an inner tag such as `<b>` is one symbol. Quirks kept: nodes are counted without
the root and with tags inside cells; `th` is a node without content (`th_is_td` reads it as `td`, as OmniDocBench does).
Differences: any text around the table is ignored, bad HTML never raises, and a score below 0 is 0. Own code, because
the packaged versions raise on bad HTML and know no bound.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from eval.metrics._table_tree import TableTree, read_table
from eval.metrics._tree_distance import cell_distances, steps, tree_distance
from eval.metrics.registry import as_texts, register_metric

logger = logging.getLogger(__name__)

MAX_NODES = 1500
MAX_SYMBOLS = 20_000  # letters in cells
MAX_STEPS = 10_000_000  # of comparing two trees: a few seconds


@register_metric("teds")
def teds(
    prediction: str,
    references: Sequence[str],
    structure_only: bool = False,
    th_is_td: bool = False,
) -> float:
    """Similarity in [0, 1] to the nearest reference; 0.0 without a table in the prediction or without references.

    Bounded: a table of more than MAX_NODES elements or MAX_SYMBOLS letters (a model that repeats itself, mostly) and a
    pair that would take more than MAX_STEPS (tags nested without end) are not compared; they score 0.0, with a warning.
    """
    predicted = _read(str(prediction), structure_only, th_is_td)
    golds = [_read(reference, structure_only, th_is_td) for reference in as_texts(references)] if predicted else []
    return max((similarity(predicted, gold) for gold in golds if gold), default=0.0)


def _read(text: str, structure_only: bool, th_is_td: bool) -> TableTree | None:
    table = read_table(text, structure_only, th_is_td, MAX_NODES)
    if table and (table.count > MAX_NODES or sum(map(len, table.contents)) > MAX_SYMBOLS):
        logger.warning("teds: a table of more than %d nodes or %d letters scores 0.0", MAX_NODES, MAX_SYMBOLS)
        return None
    return table


@register_metric("teds_structure")
def teds_structure(prediction: str, references: Sequence[str], th_is_td: bool = False) -> float:
    """TEDS-S: `teds` with the contents of cells left out."""
    return teds(prediction, references, structure_only=True, th_is_td=th_is_td)


def similarity(a: TableTree, b: TableTree) -> float:
    """TEDS of two tables that were read; 1.0 for two empty ones, 0.0 for two that take too long to compare."""
    nodes = max(a.count, b.count)
    if steps(a.leftmost) * steps(b.leftmost) > MAX_STEPS:
        logger.warning("teds: two tables that take more than %d steps to compare score 0.0", MAX_STEPS)
        return 0.0
    return max(0.0, 1.0 - tree_distance(a.leftmost, b.leftmost, rename_costs(a, b)) / nodes) if nodes else 1.0


def rename_costs(a: TableTree, b: TableTree) -> np.ndarray:
    """Cost (N_a, N_b) of turning a node of `a` into one of `b`."""
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(a.kinds + b.kinds))}
    numbers_a, numbers_b = (np.array([kinds[kind] for kind in tree.kinds]) for tree in (a, b))
    return np.where(numbers_a[:, None] == numbers_b, cell_distances(a.contents, b.contents), 1.0)
