"""Hand-made mini copies of public benchmarks in their real schema, so that every benchmark is tested without a network.

One file a benchmark or family. Each writes below a data root what a download of the repository would have left there,
so that `job_for_task(name, DataPlaces(root, cache))` reads it with the code that reads the real thing:

    @mini("docvqa")
    def write(root: Path) -> None:
        copy = HubCopy(root, "lmms-lab/DocVQA")
        copy.table(ROWS, FEATURES, split="validation", config="DocVQA")
"""

from __future__ import annotations

from eval.registry import discover
from tests.helpers.mini_benchmarks._hub_copy import HubCopy, edit_rows, picture, picture_of
from tests.helpers.mini_benchmarks._registry import mini, mini_names, write_mini

discover(__name__, __path__)

__all__ = ["HubCopy", "edit_rows", "mini", "mini_names", "picture", "picture_of", "write_mini"]
