"""ROUGE-L (Lin, 2004): how long a common subsequence of words a report shares with its reference; two packages.

`package="rouge_score"`: the library (Google's, beta 1): words are runs of a-z and 0-9, letters of other scripts vanish.
`package="pycocoevalcap"`: the rule of the COCO caption code, which VILA-M3 uses: words by single blanks (there after a
Java tokenizer, which we do not run), beta 1.2, best precision and best recall taken apart over references.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from eval.metrics.registry import as_texts, register_metric


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, O(len(a)·len(b)) with one row of memory."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]


def coco_rouge_l(prediction: str, references: Sequence[str], beta: float = 1.2) -> tuple[float, float, float]:
    """(F, best precision, best recall). An empty text is one empty word, as `str.split(" ")` has it."""
    words = prediction.split(" ")
    golds = [reference.split(" ") for reference in references]
    shared = [common_subsequence(words, gold) for gold in golds]
    precision = max(shared) / len(words)
    recall = max(common / len(gold) for common, gold in zip(shared, golds))
    if not precision:
        return 0.0, 0.0, 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision), precision, recall


@lru_cache(maxsize=8)
def rouge_scorer(kind: str, use_stemmer: bool) -> Any:
    """The library's scorer. Raises ImportError that says what to install."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError("ROUGE-L needs rouge-score: pip install 'radio-vlm[eval]' (or rouge-score)") from error
    return RougeScorer([kind], use_stemmer=use_stemmer)


@register_metric("rouge_l")
def rouge_l(
    prediction: str,
    references: Sequence[str],
    package: str = "rouge_score",
    variant: str = "rougeL fmeasure beta=1",
    use_stemmer: bool = False,
    beta: float = 1.2,
    tokenizer: str = "str.split(' ')",
    value: str | None = None,
) -> float:
    """F-measure of the longest common subsequence, in [0, 1]. No references: 0.0.

    rouge_score: `variant` names the library's score type and its part; the reference of the best F counts.
    pycocoevalcap: `beta`. `value`: "fmeasure", "precision" or "recall", whichever the variant says.
    """
    prediction, golds = str(prediction), as_texts(references)
    if package not in ("rouge_score", "pycocoevalcap"):
        raise ValueError(f"package must be 'rouge_score' or 'pycocoevalcap', not {package!r}")
    if tokenizer != "str.split(' ')":
        raise ValueError(f"tokenizer {tokenizer!r} is not offered; pycocoevalcap's rule here is \"str.split(' ')\"")
    if not golds:
        return 0.0
    kind, part, *_ = [*variant.split(), "fmeasure"]
    if package == "pycocoevalcap":
        parts = dict(zip(("fmeasure", "precision", "recall"), coco_rouge_l(prediction, golds, beta)))
        return parts[value or "fmeasure"]
    return float(getattr(rouge_scorer(kind, use_stemmer).score_multi(golds, prediction)[kind], value or part))
