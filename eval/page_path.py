"""Where a page may be written: never over results, which may have taken a night, and never under the name of some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.results_file import read_results


def checked_page_path(out: Path, inputs: Sequence[Path]) -> Path:
    """`out`, if a page or Markdown made of `inputs` may be written there.

    Raises ValueError where it is one of them, has the ending of data, or holds results of another run.
    """
    if out.exists() and any(path.exists() and out.samefile(path) for path in inputs):
        raise ValueError(f"{out} is one of the results files and is not written over: name a page, such as page.html")
    if out.suffix.lower() in (".json", ".jsonl"):
        raise ValueError(f"{out} would be a page under the name of data: let it end in .html or .md")
    if out.is_file() and _holds_results(out):
        raise ValueError(f"{out} holds results and is not written over: choose another name")
    return out


def page_beside(inputs: Sequence[Path]) -> Path:
    """`A.html`, or `A-and-2-more.html` for three files: the page about A alone, which `--report` writes, stays."""
    more = f"-and-{len(inputs) - 1}-more" if len(inputs) > 1 else ""
    return inputs[0].with_name(f"{inputs[0].stem}{more}.html")


def _holds_results(path: Path) -> bool:
    try:
        read_results(path)
    except (ValueError, OSError):
        return False
    return True
