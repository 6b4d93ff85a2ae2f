"""kill -9 at a random step, resume: the losses of the following steps against those of the uninterrupted run.

Stages 1 and 2, each plain and with LoRA, each from map-style and from streamed sources (with another number of workers
after the resume), padded and packed, one process and two under ZeRO; the tiny model of the tests. And the same stop
with a resume on another number of processes.

    python tests/check/resume_numbers.py runs/check/resume
"""

import json
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402
from tests.helpers.stage_runs import PROBE, launch, losses, mixed_corpus, save_small_vlm  # noqa: E402
from tests.helpers.streamed_folders import parquet_folder  # noqa: E402

SAVE_EVERY, EARLIEST, LATEST, AFTER = 10, 12, 28, 50
STEPS = LATEST + AFTER
STAGE1 = ("modules.vision.freeze=true", "modules.text.freeze=true")
STAGE2 = ("modules.text.lr=5e-4",)
LORA = ("adapter.rank=4", "adapter.alpha=8")
MAP = ("data.sources=[{path: mixed}]",)
STREAM = ("data.sources=[{path: stream, streaming: true}]", "stream_block=16")
BOTH = ("data.sources=[{path: stream, streaming: true, weight: 2}, {path: mixed, weight: 1}]", "stream_block=16")
PACKED = ("packing=true", "pack_length=192", "packing_buffer=32")
MUON = ("optimizer=muon", "muon_learning_rate=0.002")


@dataclass(frozen=True)
class Case:
    """One kill: what trains, from which data, on how many processes before and after."""

    name: str
    words: tuple[str, ...]
    processes: int = 1
    again: tuple[str, ...] = ()
    processes_again: int | None = None
    target: str = "<= 1e-6"


CASES = (
    Case("stage 1, map-style", (*STAGE1, *MAP, "num_workers=1")),
    Case("stage 1, streaming, 2 workers then none", (*STAGE1, *STREAM, "num_workers=2"), again=("num_workers=0",)),
    Case("stage 1, LoRA, map-style", (*STAGE1[:1], *LORA, *MAP)),
    Case("stage 1, LoRA, streaming beside map-style, none then 2 workers", (*STAGE1[:1], *LORA, *BOTH),
         again=("num_workers=2",)),
    Case("stage 2, map-style, 2 processes, ZeRO-2", (*STAGE2, *MAP, "zero=zero2"), processes=2),
    Case("stage 2, map-style, packed, Muon", (*STAGE2, *MAP, *PACKED, *MUON)),
    Case("stage 2, streaming, packed, none then 1 worker", (*STAGE2, *STREAM, *PACKED), again=("num_workers=1",)),
    Case("stage 2, LoRA, map-style", (*STAGE2, *LORA, *MAP)),
    Case("stage 2, LoRA, streaming, 2 processes, ZeRO-3", (*STAGE2, *LORA, *STREAM, "zero=zero3"), processes=2),
    Case("stage 2, ZeRO-3, 2 processes then 1", (*STAGE2, *MAP, "zero=zero3", "global_batch_size=2"), processes=2,
         processes_again=1, target="<= 1e-4"),
)  # fmt: skip


def prepare(folder: Path) -> None:
    """A new folder with the model, a mixed corpus, and one as parquet files to be streamed."""
    shutil.rmtree(folder, ignore_errors=True)
    save_small_vlm(folder / "stage0")
    mixed_corpus(folder / "mixed", n=50)
    parquet_folder(folder / "stream", (17, 17, 16), row_group=10, pictures=True)


def run(folder: Path, out: str, case: Case, *extra: str, processes: int, kill: int | None = None) -> Path:
    line = [
        f"model={folder / 'stage0'}", f"output_dir={folder / out}", f"data.root={folder}", f"max_steps={STEPS}",
        "per_device_batch_size=1", "max_length=128", "learning_rate=1e-3", "precision=fp32", "log_steps=1",
        f"save_steps={SAVE_EVERY}", "watch.report_to=[]", *case.words, *extra,
    ]  # fmt: skip
    environment = {"STAGE_PROBE_OUT": str(folder / out / "probe")}
    if kill is not None:
        environment["STAGE_PROBE_KILL"] = f"{processes - 1}:{kill}"
    launched = processes if processes > 1 or case.processes > 1 else 0
    done = launch(PROBE, line, launched, timeout=180, **environment)
    if (done.returncode == 0) == (kill is not None):
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(line)}\n{done.stderr[-3000:]}{done.stdout[-2000:]}")
    return folder / out


def one_kill(folder: Path, index: int, case: Case, kill: int) -> Number:
    """The largest relative difference of a step's loss between the resumed and the uninterrupted run."""
    whole = run(folder, f"{index}-whole", case, processes=case.processes)
    run(folder, f"{index}-killed", case, processes=case.processes, kill=kill)
    again = ["resume=true", *case.again]
    processes = case.processes_again or case.processes
    resumed = run(folder, f"{index}-killed", case, *again, processes=processes)
    expected, found = losses(whole), losses(resumed)
    if sorted(found) != list(range(1, STEPS + 1)) or sorted(expected) != sorted(found):
        raise RuntimeError(f"{case.name}: the runs logged other steps than 1 to {STEPS}")
    after = range((kill - 1) // SAVE_EVERY * SAVE_EVERY + 1, STEPS + 1)  # it kills before the step is saved
    batches = len(json.loads((resumed / "probe/rank0.json").read_text())["seen"])
    if batches != len(after) * case.processes // processes:
        raise RuntimeError(f"{case.name}: {batches} batches were trained on after the kill, not those of steps {after}")
    worst = max(abs(found[step] - expected[step]) / abs(expected[step]) for step in after)
    typed = f"kill -9 at step {kill}, resume=true from {after[0] - 1}; {' '.join(case.words)}"
    name = f"kill -9, {case.name}: largest relative difference of {len(after)} losses"
    return Number(name, case.target, worst, typed)


def resume_numbers(out: Path, cases: tuple[Case, ...] = CASES) -> list[Number]:
    """All rows."""
    out = out.resolve()
    prepare(out)
    draw = random.SystemRandom()
    return [one_kill(out, i, case, draw.randint(EARLIEST, LATEST)) for i, case in enumerate(cases)]


if __name__ == "__main__":
    print(table(resume_numbers(Path(sys.argv[1]))))
