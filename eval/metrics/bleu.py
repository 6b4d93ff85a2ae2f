"""BLEU-1..4 (Papineni et al., ACL 2002) as the two packages that reports are scored with compute it.

`package="sacrebleu"`: the library itself (Post, WMT 2018), 13a tokens, exponential smoothing.
`package="pycocoevalcap"`: the rule of the COCO caption code, which VILA-M3 uses: tokens by blanks (there after a Java
tokenizer, which we do not run), no smoothing but 1e-15, closest reference length.
They differ by points on the same reports: always say which. A mean of sentence scores is not corpus BLEU; for figures
over many samples use the aggregate `CorpusBleu`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from eval.metrics.registry import as_texts, register_metric

TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap's guards against division by zero


@lru_cache(maxsize=16)
def sacrebleu_scorer(order: int = 4, **options: Any) -> Any:
    """The library's `BLEU` object. Raises ImportError that says what to install."""
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise ImportError("BLEU needs sacrebleu: pip install 'radio-vlm[eval]' (or sacrebleu)") from error
    return BLEU(max_ngram_order=order, **options)


def coco_statistics(prediction: str, references: Sequence[str], order: int = 4) -> np.ndarray:
    """(prediction length, closest reference length, matches of 1..order-grams, their totals), shape (2 + 2·order,)."""
    words = [prediction.split(), *(reference.split() for reference in references)]
    length = len(words[0])
    closest = min((abs(len(reference) - length), len(reference)) for reference in words[1:])[1]
    matches = []
    for n in range(1, order + 1):
        mine, *theirs = (Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for text in words)
        matches.append(sum(min(count, max(other[gram] for other in theirs)) for gram, count in mine.items()))
    return np.array([length, closest, *matches, *(max(0, length - n) for n in range(order))], dtype=np.float64)


def coco_bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU (...) in [0, 1] from summed `coco_statistics` (..., 2 + 2·order)."""
    order = (sums.shape[-1] - 2) // 2
    matches, totals = sums[..., 2 : 2 + order], sums[..., 2 + order :]
    score = np.prod((matches + TINY) / (totals + SMALL), axis=-1) ** (1.0 / order)
    ratio = (sums[..., 0] + TINY) / (sums[..., 1] + SMALL)
    return score * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))


def bleu(
    prediction: str | Sequence[str],
    references: Sequence[Any],
    order: int = 4,
    package: str = "sacrebleu",
    level: str | None = None,
    value: str = "score",
    tokenize: str = "13a",
    lowercase: bool = False,
    smooth_method: str = "exp",
    smooth_value: float | None = None,
    effective_order: bool | None = None,
) -> Any:
    """BLEU-`order` of one prediction, or with `level="corpus"` of a list of predictions and their reference lists.

    Without `level`: the sentence score in [0, 1] (orders longer than the text left out, `effective_order`). With
    `level` "sentence" or "corpus" the package's own scale: sacrebleu 0..100, pycocoevalcap 0..1. `value`: "score",
    "bp" (brevity penalty) or "precisions" (a list, in percent), of sacrebleu only. No references: 0.0.
    """
    corpus = not isinstance(prediction, str) and isinstance(prediction, Sequence)
    predictions = [str(text) for text in prediction] if corpus else [str(prediction)]
    reference_lists = [as_texts(texts) for texts in references] if corpus else [as_texts(references)]
    if len(predictions) != len(reference_lists):
        raise ValueError(f"{len(predictions)} predictions, but references for {len(reference_lists)}")
    if level not in (None, "sentence", "corpus") or (corpus and level == "sentence"):
        raise ValueError(f"level must be 'sentence' or 'corpus', and 'corpus' for a list of predictions; not {level!r}")
    if not predictions or not all(reference_lists):
        return 0.0
    if package == "pycocoevalcap":
        return float(coco_bleu(sum(coco_statistics(p, r, order) for p, r in zip(predictions, reference_lists))))
    if package != "sacrebleu":
        raise ValueError(f"package must be 'sacrebleu' or 'pycocoevalcap', not {package!r}")
    if effective_order is None:
        effective_order = level != "corpus"
    scorer = sacrebleu_scorer(
        order,
        tokenize=tokenize,
        lowercase=lowercase,
        smooth_method=smooth_method,
        smooth_value=smooth_value,
        effective_order=effective_order,
    )
    if level == "corpus" or corpus:
        most = max(len(texts) for texts in reference_lists)
        streams = [[texts[i] if i < len(texts) else None for texts in reference_lists] for i in range(most)]
        result = scorer.corpus_score(predictions, streams)
    else:
        result = scorer.sentence_score(predictions[0], reference_lists[0])
    if value != "score":
        return {"bp": result.bp, "precisions": result.precisions}[value]
    return result.score if level else min(result.score / 100.0, 1.0)


for _order in (1, 2, 3, 4):
    register_metric(f"bleu{_order}")(partial(bleu, order=_order))
