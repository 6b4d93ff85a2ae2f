"""ROUGE-L as the COCO caption code has it (beta 1.2, words by blanks): `rouge_l(package="pycocoevalcap")` by a name.

Under a name of its own it stands in a results row beside the library's `rouge_l`, from which it differs by points.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import register_metric
from eval.metrics.rouge_l import rouge_l


@register_metric("rouge_l_coco")
def rouge_l_coco(prediction: str, references: Sequence[str]) -> float:
    """F of the longest common subsequence, recall weighing 1.44 times precision. No references: 0.0."""
    return rouge_l(prediction, references, package="pycocoevalcap")
