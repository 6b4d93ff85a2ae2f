"""Radiology metrics that are networks themselves, all through one package: RadEval (PyPI `radeval`), which the user
installs. Read at version 2.2.1; nothing here imports it before such a metric is asked for, and its networks were not
run here: its weights (RadGraph-XL, CheXbert, GREEN's 7B model) are downloaded by the package at first use.

The older packages `radgraph` 0.1.18 and `f1chexbert` 0.0.2 call tokenizer functions that transformers 5 no longer has;
RadEval carries copies that were mended.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

logger = logging.getLogger(__name__)


class MissingPackageError(ImportError, ValueError):
    """A metric needs a package that is not installed; the message says which. A request that cannot be met."""


def radeval_class(metric: str, module: str, name: str) -> Any:
    """`radeval.metrics.<module>.<name>`. Raises MissingPackageError."""
    try:
        return getattr(importlib.import_module(f"radeval.metrics.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise MissingPackageError(
            f"the metric {metric} needs RadEval: pip install radeval (2.2.1 or later). Its weights are downloaded by"
            f" that package at first use ({error})"
        ) from error


class Remembered:
    """Results of a network by what it was asked, so that many samples are put to it at once and none twice.

    open: makes the scorer, when it is first needed. ask: (scorer, list of questions) -> list of results.
    """

    def __init__(self, open: Callable[[], Any], ask: Callable[[Any, list[Any]], Sequence[Any]]) -> None:
        self.open, self.ask = open, ask
        self.scorer: Any = None
        self.failure: Exception | None = None
        self.known: dict[Any, Any] = {}

    def prepare(self, questions: Sequence[Any]) -> None:
        """Asks all that is not known yet. Raises MissingPackageError; ValueError for whatever the package raises."""
        left = [question for question in dict.fromkeys(questions) if question not in self.known]
        if not left:
            return
        if self.failure is not None:  # a download that failed is not tried again for every sample
            raise self.failure
        try:
            self.scorer = self.scorer or self.open()
            self.known |= zip(left, self.ask(self.scorer, left), strict=True)
        except MissingPackageError as error:
            self.failure = error
            raise
        except Exception as error:
            self.failure = ValueError(f"RadEval failed: {type(error).__name__}: {error}")
            raise self.failure from error

    def __getitem__(self, question: Any) -> Any:
        self.prepare([question])
        return self.known[question]
