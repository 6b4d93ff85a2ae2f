"""Macro and micro F1 over labels, and the share of answers that could not be read - two figures that belong together.

Two layouts. LISTS: one question a sample, its answer lists the labels (`eval.metrics.label_f1`). YES/NO (`by`): one
question a label, `row[by]` names the label and the answer is yes or no; this is how VILA-M3 scores CXR14 and CheXpert
(macro F1 of the positive class), except that its unreadable answers become "no" unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, output_of, register_aggregate
from eval.metrics.exact_match_closed import first_yes_no
from eval.metrics.label_f1 import gold_labels, normalise_label, read_labels


class _Labelled(Aggregate):
    """Reads (answered set or None, gold set) from a row."""

    def __init__(
        self,
        labels: Sequence[str] | None = None,
        by: str | None = None,
        multi_label: bool = True,
        name: str | None = None,
    ) -> None:
        self.labels = labels
        self.by = by
        self.multi_label = multi_label
        self.name = name or type(self).name

    def read(self, row: Row) -> tuple[frozenset[str] | None, frozenset[str]] | None:
        """None for a sample without a gold answer: nothing can be said of it."""
        if not row.get("answers"):
            return None
        if self.by is None:
            labels, multi_label = self._options(row)
            return read_labels(output_of(row), labels, multi_label), gold_labels(row["answers"], labels, multi_label)
        answered, gold = first_yes_no(output_of(row)), first_yes_no(str(row["answers"][0]))
        label = frozenset({normalise_label(str(row.get(self.by)))})
        return (None if answered is None else label if answered == "yes" else frozenset()), (
            label if gold == "yes" else frozenset()
        )

    def _options(self, row: Row) -> tuple[Sequence[str] | None, bool]:
        scoring: dict[str, Any] = row.get("scoring") or {}
        labels = self.labels if self.labels is not None else scoring.get("labels")
        return labels, bool(scoring.get("multi_label", self.multi_label))


@register_aggregate("label_f1")
class LabelF1(_Labelled):
    """F1 = 2 TP / (2 TP + FP + FN), per label and averaged ("macro") or of the summed counts ("micro").

    An invalid answer asserts nothing: its gold labels are missed (FN). Labels are those given, or in `row["scoring"]`,
    or all that occur as gold. One that occurs neither as gold nor as answer has no F1 and is left out of the macro
    mean (scikit-learn: `zero_division=nan`). An answered label that is none of these is a FP of micro F1 only.
    """

    def __init__(
        self,
        average: str = "macro",
        labels: Sequence[str] | None = None,
        by: str | None = None,
        multi_label: bool = True,
        name: str | None = None,
    ) -> None:
        if average not in ("macro", "micro"):
            raise ValueError(f"average must be 'macro' or 'micro', not {average!r}")
        super().__init__(labels, by, multi_label, name or f"label_f1_{average}")
        self.average = average
        self._places: dict[str, int] | None = None

    def prepared(self, rows: Sequence[Row]) -> LabelF1:
        copy = LabelF1(self.average, self.labels, self.by, self.multi_label, self.name)
        found = {normalise_label(label) for label in self.labels or ()}
        for row in rows if self.labels is None else ():
            found |= {normalise_label(label) for label in self._options(row)[0] or ()}
            found |= (self.read(row) or (None, frozenset()))[1]
        copy._places = {label: place for place, label in enumerate(sorted(found))}
        return copy

    def statistics(self, row: Row) -> np.ndarray | None:
        """(TP, FP, FN) of every label, then of all other labels together."""
        if self._places is None:
            raise ValueError(f"{self.name}: call prepared(rows) first")
        read = self.read(row)
        if read is None:
            return None
        answered, gold = read[0] or frozenset(), read[1]
        counts = np.zeros((len(self._places) + 1, 3))
        for label in answered | gold:
            kind = 0 if label in answered and label in gold else 1 if label in answered else 2
            counts[self._places.get(label, -1), kind] += 1
        return counts.ravel()

    def combine(self, sums: np.ndarray) -> np.ndarray:
        counts = sums.reshape(*sums.shape[:-1], -1, 3)
        if self.average == "micro":
            return _f1(counts.sum(-2))
        scores = _f1(counts[..., :-1, :])
        defined = ~np.isnan(scores)
        return divide(np.where(defined, scores, 0.0).sum(-1), defined.sum(-1), np.nan)


@register_aggregate("invalid_rate")
class InvalidRate(_Labelled):
    """Share of samples whose answer cannot be read as labels (or as yes or no), failed samples included."""

    name = "invalid_rate"
    denominator = 1

    def statistics(self, row: Row) -> np.ndarray | None:
        read = self.read(row)
        return None if read is None else np.array([read[0] is None, 1.0])

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1], np.nan)


def _f1(counts: np.ndarray) -> np.ndarray:
    """F1 (...) from (TP, FP, FN) (..., 3); NaN where nothing was counted."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return divide(2 * tp, 2 * tp + fp + fn, np.nan)
