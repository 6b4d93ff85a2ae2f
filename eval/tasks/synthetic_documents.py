"""Questions on the embedded document pages (receipts, forms, tables, bar charts): short exact answers.

The control shows another page of the same kind on which the same question has another answer: a model that reads must
fall to chance, one that guesses from the question keeps its score.
"""

from __future__ import annotations

from eval.controls import IMAGES_EXCHANGED
from eval.tasks.base import Task
from eval.tasks.registry import register_task


@register_task
class SyntheticDocuments(Task):
    name = "synthetic_documents"
    key = "documents"
    metrics = ("exact_match", "anls")
    max_new_tokens = 12
    controls = (IMAGES_EXCHANGED,)
