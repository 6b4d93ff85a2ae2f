"""Labels of one sample, e.g. the findings of a chest X-ray: F1 between the set answered and the set that holds.

An answer is read, never guessed from: it is a list of labels ("Edema, Effusion", "Edema|Effusion", a JSON list), a
single label or "none"; anything else is INVALID, scores 0 and is counted by the aggregate `invalid_rate`, since answers
that silently become "no finding" flatter a model that cannot answer. Macro and micro F1: the aggregate `LabelF1`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from eval.metrics.accuracy import normalise_answer
from eval.metrics.registry import as_texts, register_metric

NOTHING = frozenset({"none", "no finding", "no findings", "nothing", "normal"})
_SEPARATORS = re.compile(r"[,;|\n]")


def normalise_label(text: str) -> str:
    """`"Pleural_Thickening."` → `"pleural thickening"`."""
    return normalise_answer(text.replace("_", " "))


def read_labels(text: str, labels: Sequence[str] | None = None, multi_label: bool = True) -> frozenset[str] | None:
    """The labels in an answer (normalised), the empty set for "none", None for an answer that cannot be read.

    `labels` are the valid ones; any other part makes the answer unreadable. Without `labels` every part is a label.
    Single-label answers hold exactly one. A label that itself means nothing ("No Finding") wins over the empty set.
    """
    known = None if labels is None else {normalise_label(label) for label in labels}
    whole = normalise_label(text)
    if known is not None and whole in known or not multi_label:
        return frozenset({whole}) if whole and (known is None or whole in known) else None
    if whole in NOTHING:
        return frozenset()
    parts = [normalise_label(part) for part in _parts(text)]
    if known is not None and not set(parts) <= known:
        parts = [normalise_label(half) for part in parts for half in re.split(r"\band\b", part)]
    parts = [part for part in parts if part]
    return frozenset(parts) if parts and (known is None or set(parts) <= known) else None


def _parts(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            return [str(part) for part in json.loads(text)]
        except (ValueError, RecursionError):
            pass
    return _SEPARATORS.split(text)


def gold_labels(
    references: Sequence[object] | object, labels: Sequence[str] | None = None, multi_label: bool = True
) -> frozenset[str]:
    """The set that holds: all references together, each a label or a list of labels; no references: the empty set.

    Raises ValueError for a gold label that is not among `labels`: no answer could ever meet it.
    """
    gold: set[str] = set()
    for reference in as_texts(references):
        read = read_labels(reference, labels, multi_label)
        if read is None and normalise_label(reference) not in NOTHING | {""}:
            raise ValueError(f"gold label {reference!r} is not among {list(labels or ())}")
        gold |= read or frozenset()
    return frozenset(gold)


@register_metric("label_f1")
def label_f1(
    prediction: str,
    references: Sequence[str],
    labels: Sequence[str] | None = None,
    multi_label: bool = True,
    exact: bool = False,
) -> float:
    """F1 = 2 |P ∩ G| / (|P| + |G|) of predicted and gold sets; 1.0 for two empty sets, 0.0 for an invalid answer.

    `exact`: 1.0 only if the sets are equal (subset accuracy, as scikit-learn's `accuracy_score` of indicator rows).
    With `multi_label=False`, references are alternatives and one suffices.
    """
    answered = read_labels(str(prediction), labels, multi_label)
    gold = gold_labels(references, labels, multi_label)
    if answered is None:
        return 0.0
    if not multi_label:
        return float(answered <= gold)
    if exact or not answered | gold:
        return float(answered == gold)
    return 2 * len(answered & gold) / (len(answered) + len(gold))
