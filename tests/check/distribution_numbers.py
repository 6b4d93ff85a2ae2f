"""Two processes against one: losses of 200 steps, text-only and image ranks together, under every ZeRO stage.

The tiny model of the tests, fp32, loss averaged over tokens. One process is fed the two ranks' batches in turns.

    python tests/check/distribution_numbers.py runs/check/distribution
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402
from tests.helpers.stage_runs import (  # noqa: E402
    PROBE,
    launch,
    losses,
    mixed_corpus,
    save_small_vlm,
)

ONE_PROCESS = ROOT / "tests/helpers/one_process_stage.py"
STEPS, TIMEOUT = 200, 180
PADDED = ["data.sources=[{path: mixed}]", "group_by_length=false"]
PACKED = ["data.sources=[{path: sparse}]", "packing=true", "pack_length=80", "max_length=80"]
LAYOUTS = {
    "padded": (PADDED, ("none", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")),
    "packed": (PACKED, ("none", "zero2", "zero3")),
}


def words(folder: Path, out: str, *extra: str, steps: int = STEPS) -> list[str]:
    """Words of a stage on the prepared folder."""
    return [
        f"model={folder / 'stage0'}", f"output_dir={folder / out}", f"data.root={folder}",
        f"max_steps={steps}", "per_device_batch_size=1", "max_length=128",
        "learning_rate=1e-3", "weight_decay=0.1", "precision=fp32", "log_steps=1", "watch.report_to=[]", *extra,
    ]  # fmt: skip


def prepare(folder: Path) -> None:
    """A new folder with the model and corpora in which every second and every sixth sample has an image."""
    shutil.rmtree(folder, ignore_errors=True)
    save_small_vlm(folder / "stage0")
    mixed_corpus(folder / "mixed", n=60)
    mixed_corpus(folder / "sparse", n=60, every=6)


def run(script: Path, line: list[str], processes: int, **environment: str) -> float:
    """Run a stage; seconds it took. A hang is an error after TIMEOUT seconds."""
    started = time.perf_counter()
    try:
        done = launch(script, line, processes, timeout=TIMEOUT, **environment)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no end after {TIMEOUT} s: {' '.join(line)}") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}\n{done.stderr[-3000:]}{done.stdout[-2000:]}")
    return time.perf_counter() - started


def mixed_steps(probe: Path) -> int:
    """Steps in which one rank had an image and the other none, from what the probe saw."""
    seen = [json.loads((probe / f"rank{rank}.json").read_text())["seen"] for rank in (0, 1)]
    return sum(a[1] != b[1] for a, b in zip(*seen))


def largest_difference(folder: Path, reference: Path) -> float:
    """Between the losses of the same steps of two runs."""
    found, expected = losses(folder), losses(reference)
    if sorted(found) != sorted(expected):
        raise RuntimeError(f"{folder} and {reference} logged different steps")
    return max(abs(found[step] - loss) for step, loss in expected.items())


def distribution_numbers(out: Path, steps: int = STEPS, layouts: dict = LAYOUTS) -> list[Number]:
    """All rows."""
    out = out.resolve()
    prepare(out)
    numbers = []
    for layout, (extra, stages) in layouts.items():
        one = [*words(out, f"{layout}-one", *extra, steps=steps), "zero=none", "gradient_accumulation_steps=2"]
        run(ONE_PROCESS, one, processes=0, STAGE_RANKS="2")
        for zero in stages:
            name = f"{layout}-{zero}"
            line = [*words(out, name, *extra, steps=steps), f"zero={zero}"]
            seconds = run(PROBE, line, processes=2, STAGE_PROBE_OUT=str(out / name / "probe"))
            typed = f"zero={zero} {' '.join(extra)}, 2 processes, {steps} steps, {seconds:.0f} s, no hang"
            worst = largest_difference(out / name, out / f"{layout}-one")
            numbers.append(Number(f"{layout}, {zero}: largest difference of a step's loss to one process", "<= 1e-4",
                                  worst, typed))  # fmt: skip
        mixed = mixed_steps(out / f"{layout}-{stages[0]}" / "probe")
        numbers.append(Number(f"{layout}: steps with a text-only rank beside an image rank", ">= 20", mixed, typed))
    return numbers


if __name__ == "__main__":
    print(table(distribution_numbers(Path(sys.argv[1]))))
