"""`make check`: every number the project promises, at the size it promises it; writes runs/check/numbers.json.

Runs the demo for each seed, scores the first one on fresh data, opens its export in an environment without this
package, trains stage 2 once more without stage 1 and stage 4 with every remedy against forgetting, measures the RADIO
encoders, the language models and the training engine, and runs the real files where they are. About two hours on two
cores, half an hour of them for the remedies.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.adapter_numbers import adapter_numbers  # noqa: E402
from tests.check.check_data_numbers import check_data_numbers  # noqa: E402
from tests.check.distribution_numbers import distribution_numbers  # noqa: E402
from tests.check.encoder_numbers import encoder_numbers  # noqa: E402
from tests.check.eval_numbers import eval_numbers  # noqa: E402
from tests.check.evs_numbers import evs_numbers  # noqa: E402
from tests.check.expert_session_numbers import expert_session_numbers  # noqa: E402
from tests.check.family_numbers import family_numbers  # noqa: E402
from tests.check.forgetting_numbers import forgetting_numbers  # noqa: E402
from tests.check.geometry_numbers import geometry_numbers  # noqa: E402
from tests.check.lmms_numbers import lmms_numbers  # noqa: E402
from tests.check.lora_numbers import lora_numbers  # noqa: E402
from tests.check.loss_numbers import loss_numbers  # noqa: E402
from tests.check.medical_image_numbers import medical_image_numbers  # noqa: E402
from tests.check.omni_numbers import omni_numbers  # noqa: E402
from tests.check.packing_numbers import packing_numbers  # noqa: E402
from tests.check.plan_numbers import plan_numbers  # noqa: E402
from tests.check.projector_numbers import projector_numbers  # noqa: E402
from tests.check.real_eval import real_eval  # noqa: E402
from tests.check.real_files import real_files  # noqa: E402
from tests.check.recipe_step import recipe_step_numbers  # noqa: E402
from tests.check.resume_numbers import resume_numbers  # noqa: E402
from tests.check.scan_numbers import scan_numbers  # noqa: E402
from tests.check.step_numbers import step_numbers  # noqa: E402
from tests.check.targets import Number, demo_numbers, table, write  # noqa: E402
from tests.check.training_throughput_numbers import training_throughput_numbers  # noqa: E402
from tests.check.video_numbers import video_numbers  # noqa: E402

PYTHON = sys.executable
FRESH_SEED = 1001
SHARED = Path(os.environ.get("RADIO_VLM_SHARED", ROOT.parent / "shared"))


def run(*words: object) -> str:
    """Runs a command from the repository root and returns it as a person would type it."""
    command = [str(word) for word in words]
    subprocess.run(command, cwd=ROOT, check=True)
    return " ".join(command)


def demo(seed: int, out: Path) -> list[Number]:
    run(PYTHON, "-m", "vlm", "demo", "--seed", seed, "--out", out)
    typed = f"radio-vlm demo --seed {seed}"
    results = json.loads((out / "results.json").read_text())
    heldout = json.loads((out / "stage1/heldout.json").read_text())
    drop = 1 - heldout["after"]["loss"] / heldout["before"]["loss"]
    name = f"seed {seed}: stage 1 lowers the held-out loss by"
    return [*demo_numbers(results, typed), Number(name, ">= 0.2", round(drop, 4), typed)]


def fresh_data(out: Path, demo_out: Path) -> list[Number]:
    """The same figures from data that no demo has seen, through the commands of the README."""
    shutil.rmtree(out, ignore_errors=True)
    results = json.loads((demo_out / "results.json").read_text())["stages"]["stage4"]
    folders = []
    fresh = ("--split", "test", "--seed", FRESH_SEED)
    for task, n in {"documents": 200, "videos": 400, "patients": 110}.items():
        folders.append(out / f"{task}-test")
        run(PYTHON, "-m", "vlm", "make-data", "--task", task, *fresh, "--n", n, "--out", folders[-1])
    experts = ("--expert-weights", demo_out / "experts")
    questions = ("--wording", "training/recipes/tiny/wording.yaml", "--shares", "no_expert=0.5", "vqa=0", "report=0")
    images, folders[-1] = folders[-1], out / "medical-test"
    run(PYTHON, "-m", "vlm", "make-expert-data", "--images", images, *fresh, *experts, *questions, "--out", folders[-1])
    asked = ("--data", ",".join(map(str, folders)), *experts)
    typed = run(PYTHON, "eval/run.py", "--model", demo_out / "export", *asked, "--out", out / "r.json")
    tasks = json.loads((out / "r.json").read_text())["tasks"]
    rows = []
    for task, figure in {"documents": "exact_match", "videos": "accuracy", "medical": "accuracy"}.items():
        moved = tasks[task][figure] - results[task][figure]
        rows.append(Number(f"fresh seed {FRESH_SEED}: {task} {figure} minus the demo's", "", round(moved, 4), typed))
    return rows


def bare_environment(out: Path, export: Path) -> list[Number]:
    """Largest difference of logits between this package and torch + transformers + Pillow alone."""
    from tests.helpers.bare_env import build
    from tests.helpers.bare_reference import check_bare, write_reference
    from vlm.build import load_vlm

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    out = out.resolve()  # the bare environment runs in a folder of its own
    model, processor = load_vlm(export)
    reference = write_reference(model, processor, out / "reference.pt")
    found, _ = check_bare(build(out / "site"), export.resolve(), reference, out / "run")
    worst = max(found[auto]["largest_difference"] for auto in ("AutoModel", "AutoModelForImageTextToText"))
    return [Number("bare environment: largest difference of logits", "<= 1e-5", worst, "tests/helpers/bare_check.py")]


def without_alignment(out: Path, demo_out: Path, seed: int) -> list[Number]:
    """Stage 2 from the untrained projector, equal steps: what stage 1 is worth. Reported, no target."""
    launcher = Path(PYTHON).with_name("deepspeed")
    script = ("training/stage2.py", "--config", "training/recipes/tiny/stage2.yaml")
    overrides = (f"model={demo_out}/stage0", f"output_dir={out}/stage2", f"data.root={demo_out}/data", f"seed={seed}")
    typed = run(launcher, "--num_accelerators", 2, *script, *overrides)
    data = f"{demo_out}/data/documents-test"
    run(PYTHON, "eval/run.py", "--model", out / "stage2", "--data", data, "--out", out / "r.json")
    alone = json.loads((out / "r.json").read_text())["tasks"]["documents"]["exact_match"]
    aligned = json.loads((demo_out / "results.json").read_text())["stages"]["stage2"]["documents"]["exact_match"]
    return [
        Number("stage 2 after stage 1: documents exact match", "", aligned, typed),
        Number("stage 2 without stage 1: documents exact match", "", alone, typed),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/check"))
    args = parser.parse_args()
    first = args.out / f"demo-{args.seeds[0]}"
    parts = [lambda seed=seed: demo(seed, args.out / f"demo-{seed}") for seed in args.seeds]
    parts += [
        lambda: fresh_data(args.out / "fresh", first),
        lambda: bare_environment(args.out / "bare", first / "export"),
        lambda: without_alignment(args.out / "without-alignment", first, args.seeds[0]),
        lambda: forgetting_numbers(args.out / "forgetting", first, tuple(args.seeds)),
    ]
    parts.append(lambda: encoder_numbers(args.out / "encoders", SHARED))
    for numbers_of in (scan_numbers, loss_numbers, packing_numbers, step_numbers, family_numbers, lora_numbers):
        parts.append(lambda part=numbers_of: part(args.out / part.__name__.removesuffix("_numbers")))
    parts += [
        lambda: geometry_numbers(args.out / "geometry", shared=SHARED),
        lambda: projector_numbers(args.out / "projectors", demo=first),
        lambda: video_numbers(args.out / "video"),
        lambda: omni_numbers(args.out / "omni", SHARED),
        lambda: evs_numbers(args.out / "evs", first / "stage4"),
    ]
    for numbers_of in (distribution_numbers, resume_numbers, adapter_numbers, plan_numbers, recipe_step_numbers):
        parts.append(lambda part=numbers_of: part(args.out / part.__name__.removesuffix("_numbers")))
    parts += [
        lambda: training_throughput_numbers(args.out / "throughput"),
        lambda: check_data_numbers(args.out / "check_data"),
        lambda: eval_numbers(args.out / "eval", first / "export"),
        expert_session_numbers,
        lambda: medical_image_numbers(SHARED),
        lambda: lmms_numbers(args.out / "lmms", first / "export", SHARED),
    ]
    if SHARED.is_dir():
        parts.append(lambda: real_files(ROOT, SHARED / "data", args.out / "real", first))
        parts.append(lambda: real_eval(SHARED / "data", args.out / "real_eval", first))
    numbers: list[Number] = []
    for part in parts:
        numbers += part()
        write(numbers, args.out / "numbers.json")
    print(table(numbers))
    missed = [number.name for number in numbers if number.ok is False]
    print(f"{len(numbers) - len(missed)} of {len(numbers)} reached; the rows are in {args.out / 'numbers.json'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
