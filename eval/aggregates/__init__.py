"""Aggregates, one file each: how the scores of many samples become one figure, in a form that can be resampled.

from eval.aggregates import Mean
from eval.bootstrap import interval
interval(Mean("anls"), rows)   →   Estimate(value=0.61, low=0.57, high=0.65, n=500, clusters=120)
"""

from __future__ import annotations

from eval.aggregates.answerable_f1 import AnswerableF1
from eval.aggregates.base import Aggregate, aggregates, register_aggregate
from eval.aggregates.calibration import AdaptiveCalibrationError, Auroc, Brier, ExpectedCalibrationError
from eval.aggregates.corpus_bleu import CorpusBleu
from eval.aggregates.label_f1 import InvalidRate, LabelF1
from eval.aggregates.macro_mean import MacroMean
from eval.aggregates.mean import Mean
from eval.aggregates.trigger_rates import (
    ArgumentAccuracy,
    FalseTriggerRate,
    FalseTriggerRateOtherModality,
    TriggerPrecision,
    TriggerRecall,
)
from eval.aggregates.unreadable_rate import UnreadableRate
from eval.registry import discover

discover(__name__, __path__)
get_aggregate = aggregates.get

__all__ = [
    "AdaptiveCalibrationError",
    "Aggregate",
    "AnswerableF1",
    "ArgumentAccuracy",
    "Auroc",
    "Brier",
    "CorpusBleu",
    "ExpectedCalibrationError",
    "FalseTriggerRate",
    "FalseTriggerRateOtherModality",
    "InvalidRate",
    "LabelF1",
    "MacroMean",
    "Mean",
    "TriggerPrecision",
    "TriggerRecall",
    "UnreadableRate",
    "aggregates",
    "get_aggregate",
    "register_aggregate",
]
