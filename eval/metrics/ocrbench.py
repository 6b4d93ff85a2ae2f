"""OCRBench (Liu et al., 2023): the prediction is right if it CONTAINS a reference, formulas without blanks.

Follows lmms-eval 0.7.3 (`tasks/ocrbench/utils.py`). Text: lower case, outer blanks gone, newlines as blanks, full-width
ASCII folded. Formulas (the HME100k part): case kept, blanks and newlines removed. VLMEvalKit (`image_vqa.py`) does
the same without folding. Known quirks: "112.00" contains "12.00"; "1000" does not contain "1,000"; an empty reference
is contained in everything. The benchmark's number is the sum over 1000 samples, that is 1000 times the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, check_rule, register_metric

RULES = ("lmms_eval", "vlmevalkit")
FORMULA_DATASET = "HME100k"
# U+FF01..U+FF5E are the printable ASCII characters in full width, U+3000 is the blank that goes with them.
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


def _plain(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _formula(text: str) -> str:
    return text.strip().replace("\n", "").replace(" ", "")


@register_metric("ocrbench")
def ocrbench(
    prediction: str,
    references: Sequence[str],
    dataset: str = "",
    is_formula: bool | None = None,
    rule: str = "lmms_eval",
) -> float:
    """1.0 if a normalised reference is a substring of the normalised prediction, else 0.0. No references: 0.0.

    `dataset` is the sample's source as OCRBench names it; formulas are those of "HME100k" unless `is_formula` says.
    """
    check_rule("ocrbench", rule, RULES)
    if is_formula is None:
        is_formula = dataset == FORMULA_DATASET
    texts = [prediction.strip(), *as_texts(references)]
    if is_formula:
        texts = [_formula(text) for text in texts]
    elif rule == "lmms_eval":
        texts = [_plain(text.translate(_FULL_WIDTH)) for text in texts]
    else:
        texts = [_plain(text) for text in texts]
    return float(any(reference in texts[0] for reference in texts[1:]))
