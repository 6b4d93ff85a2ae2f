"""`make bench`: scan, loss and packing measured on this machine, in one table. A few minutes; rivals take turns in
one run, so the ratios hold on a busy machine too. The rows are also part of `make check`.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.loss_numbers import loss_numbers  # noqa: E402
from tests.check.packing_numbers import throughput_numbers  # noqa: E402
from tests.check.scan_numbers import scan_numbers  # noqa: E402
from tests.check.step_numbers import step_numbers  # noqa: E402
from tests.check.targets import table, write  # noqa: E402

BENCHMARKS = {"scan": scan_numbers, "loss": loss_numbers, "packing": throughput_numbers, "step": step_numbers}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="|".join(BENCHMARKS), help="some of them (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    args = parser.parse_args()
    if unknown := set(args.only) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    rows = []
    for name in args.only or BENCHMARKS:
        rows += BENCHMARKS[name](args.out / name)
        write(rows, args.out / "numbers.json")
    print(f"{os.cpu_count()} CPU cores; GPU rows need a CUDA device\n\n{table(rows)}")
    return 1 if any(row.ok is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
