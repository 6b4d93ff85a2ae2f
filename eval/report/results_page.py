"""Entry script: `python eval/report/results_page.py A.json [B.json …]` writes a page about one or several results.

Several files are shown side by side, a colour a model. The page needs no other file and makes no request; `--markdown`
writes the same tables for a pull request.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a script, Python puts eval/report/ itself there

if TYPE_CHECKING:
    from eval.results_file import Result


def results_page(results: Sequence[Result]) -> str:
    """The page's HTML."""
    from eval.report import expert_sections as experts
    from eval.report import result_sections as sections
    from eval.report.parts import document
    from eval.report.private import without_patients

    results = without_patients(results)

    body = [
        part(results)
        for part in (
            sections.header, sections.headline, sections.figures, sections.kinds, experts.worth,
            experts.confusions, experts.calibration, sections.distributions, sections.answers, sections.speed,
            sections.samples, experts.conversations, sections.provenance,
        )
    ]  # fmt: skip
    body.append(f"<footer>Made from {escape(', '.join(str(result.path) for result in results))}.</footer>")
    return document("Evaluation of " + ", ".join(result.label for result in results), "".join(body))


def write_report(results: Sequence[Result], page: Path | None, markdown: Path | None = None) -> list[Path]:
    """Writes the page, the Markdown, or both; returns what was written."""
    from eval.report.result_markdown import markdown as as_markdown

    written = []
    for path, text in ((page, results_page), (markdown, as_markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(results), encoding="utf-8", errors="xmlcharrefreplace")  # half a surrogate pair
            written.append(path)
    return written


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 for files that are no results."""
    from eval.page_path import checked_page_path, page_beside
    from eval.results_file import read_several

    p = argparse.ArgumentParser("eval/report/results_page.py", description=__doc__)
    p.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="results files of eval/run.py")
    p.add_argument("--out", type=Path, default=None, metavar="PAGE.html", help="default: A.html or A-and-1-more.html")
    p.add_argument("--markdown", type=Path, default=None, metavar="PAGE.md", help="write the tables as Markdown too")
    args = p.parse_args(argv)
    try:
        page = checked_page_path(args.out or page_beside(args.results), args.results)
        if args.markdown:
            checked_page_path(args.markdown, args.results)
        written = write_report(read_several(args.results), page, args.markdown)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"eval/report/results_page.py: {error}\n")
        return 2
    sys.stdout.writelines(f"report   {path}\n" for path in written)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(main())
