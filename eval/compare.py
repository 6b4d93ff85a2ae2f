"""Entry script: `python eval/compare.py A.json B.json --out changes.html` compares two results files, B against A.

Paired differences with 95 % intervals, how many samples got better and worse, what differs between the runs beside the
model, and the samples that changed: as a table, as a page with pictures (`--out`), as Markdown (`--markdown`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # started as a script, Python puts eval/ itself there


def parser() -> argparse.ArgumentParser:
    from eval.comparison_text import SHOWN

    p = argparse.ArgumentParser(
        "eval/compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("a", type=Path, metavar="A.json", help="results file of eval/run.py")
    p.add_argument("b", type=Path, metavar="B.json", help="results file that is compared with it")
    p.add_argument("--metric", default=None, help="score of the samples (default: each task's headline figure)")
    p.add_argument(
        "--first", type=int, default=SHOWN, metavar="N", help="changed samples shown a task (default: %(default)s)"
    )
    p.add_argument("--out", type=Path, default=None, metavar="PAGE.html", help="write a page with pictures too")
    p.add_argument("--markdown", action="store_true", help="print Markdown, for a pull request")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 for files that cannot be compared."""
    args = parser().parse_args(argv)

    from eval.comparison import compare
    from eval.comparison_text import render_markdown, render_text
    from eval.page_path import checked_page_path
    from eval.report.compare_page import compare_page
    from eval.report.private import without_patients
    from eval.results_file import read_several

    try:
        if args.first < 0:
            raise ValueError(f"--first must not be negative, not {args.first}")
        if args.out:
            checked_page_path(args.out, [args.a, args.b])
        pair = without_patients(read_several([args.a, args.b]))
        comparison = compare(*pair, args.metric)
        text = (render_markdown if args.markdown else render_text)(comparison, args.first)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(compare_page(comparison), encoding="utf-8", errors="xmlcharrefreplace")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"eval/compare.py: {error}\n")
        return 2
    sys.stdout.write(text + "\n")
    if args.out and not args.markdown:
        sys.stdout.write(f"\npage     {args.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
