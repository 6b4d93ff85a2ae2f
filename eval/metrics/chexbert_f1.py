"""CheXbert F1 (Smit et al., EMNLP 2020): do two reports assert the same of the 14 CheXpert observations?

A network labels both reports; positive and uncertain count as asserted, as in report generation papers. Through
RadEval, which the user installs; see `eval/metrics/_radeval.py` for what was and was not run here. References are
labelled as they were written. The figure of papers is over the corpus: aggregate `chexbert_f1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.metrics._radeval import Remembered, radeval_class
from eval.metrics.registry import as_texts, register_metric

OBSERVATIONS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")


def open_scorer() -> Any:
    """RadEval's F1CheXbert. Raises MissingPackageError."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return radeval_class("chexbert_f1", "f1chexbert", "F1CheXbert")(device=device)


def ask(scorer: Any, reports: list[str]) -> list[frozenset[str]]:
    """Reports -> the observations that each asserts."""
    names = list(scorer.TARGET_NAMES)
    return [
        frozenset(name for name, asserted in zip(names, labels, strict=True) if asserted)
        for labels in scorer.get_labels(reports)
    ]


remembered = Remembered(open_scorer, ask)


def observations(report: str) -> frozenset[str]:
    """What a report asserts, of OBSERVATIONS. An empty report asserts nothing."""
    return remembered[report] if report.strip() else frozenset()


@register_metric("chexbert_f1")
def chexbert_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the observations of one report, 1.0 where both assert nothing; the best reference counts.

    The mean of these is the sample average, not the micro average that papers print.
    """
    said = observations(str(prediction))
    golds = [observations(gold) for gold in as_texts(references)]
    return max((2 * len(said & gold) / (len(said) + len(gold)) if said or gold else 1.0 for gold in golds), default=0.0)


def _reports(asked: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    reports = [text for prediction, references in asked for text in (str(prediction), *as_texts(references))]
    return [report for report in reports if report.strip()]


chexbert_f1.check = lambda: radeval_class("chexbert_f1", "f1chexbert", "F1CheXbert")
chexbert_f1.prepare = lambda asked: remembered.prepare(_reports(asked))
