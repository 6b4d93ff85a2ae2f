"""`make check`: every number the project promises, at the size it promises it; writes runs/check/numbers.json.

Runs the demo for each seed, then stage 2 with and without stage 1 at equal steps. Takes about an hour on two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, demo_numbers, table, write  # noqa: E402


def demo(seed: int, out: Path) -> list[Number]:
    command = [sys.executable, "-m", "vlm", "demo", "--seed", str(seed), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    results = json.loads((out / "results.json").read_text())
    numbers = demo_numbers(results, f"radio-vlm demo --seed {seed}")
    heldout = json.loads((out / "stage1" / "heldout.json").read_text())
    drop = 1 - heldout["end"] / heldout["start"]
    name = f"seed {seed}: stage 1 lowers the held-out loss by"
    return [*numbers, Number(name, ">= 0.2", round(drop, 4), f"radio-vlm demo --seed {seed}")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/check"))
    args = parser.parse_args()
    numbers: list[Number] = []
    for seed in args.seeds:
        numbers += demo(seed, args.out / f"demo-{seed}")
        write(numbers, args.out / "numbers.json")
    print(table(numbers))
    missed = [number.name for number in numbers if number.ok is False]
    print(f"{len(numbers) - len(missed)} of {len(numbers)} reached; the rows are in {args.out / 'numbers.json'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
