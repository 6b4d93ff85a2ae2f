"""Questions on conversations of several embedded pages: the answer stands on the page that the question names.

The control shows the pages of another conversation of as many pages.
"""

from __future__ import annotations

from eval.controls import IMAGES_EXCHANGED
from eval.tasks.base import Task
from eval.tasks.registry import register_task


@register_task
class SyntheticPages(Task):
    name = "synthetic_pages"
    key = "pages"
    metrics = ("exact_match", "anls")
    max_new_tokens = 12
    controls = (IMAGES_EXCHANGED,)
