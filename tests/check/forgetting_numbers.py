"""What stage 4 forgets of the document task, and what each remedy keeps: plain fine-tuning, replay, LoRA,
self-distillation, each alone, and the last beside replay.

    python tests/check/forgetting_numbers.py runs/check/forgetting runs/demo/stage3 runs/demo/data
"""

import subprocess
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402
from training.pipeline.forgetting import read_results  # noqa: E402

RECIPE = "training/recipes/tiny/stage4.yaml"
NO_REPLAY = "data.replay.share=0"
DISTILL = ("distill.weight=1", "distill.temperature=2")
VARIANTS = {
    "plain": (NO_REPLAY,),
    "replay": (),
    "lora": (
        NO_REPLAY, "adapter.rank=16", "optimizer=adamw", "modules.text.lr=2e-3", "modules.vision.freeze=true",
        "modules.projector.freeze=true",
    ),
    "self_distillation": (NO_REPLAY, *DISTILL),
    "replay+self_distillation": DISTILL,
}  # fmt: skip
KEPT = 0.03


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], cwd=ROOT, check=True)


def scores(model: Path, data: Path, results: Path, limit: int | None) -> tuple[float, float]:
    """(documents exact match, medical accuracy) of a model folder; an evaluation that is there is not made again."""
    if not results.is_file():
        results.parent.mkdir(parents=True, exist_ok=True)
        tests = f"{data / 'documents-test'},{data / 'medical-test'}"
        asked = () if limit is None else ("--limit", limit)
        run(sys.executable, "eval/run.py", "--model", model, "--data", tests, "--out", results, *asked)
    found = read_results(results, model.name).scores
    return found["documents"].value, found["medical"].value


def forgetting_numbers(
    out: Path, start: Path, data: Path, seeds: tuple[int, ...] = (1, 2, 3), words: tuple[str, ...] = (),
    limit: int | None = None,
) -> list[Number]:  # fmt: skip
    """A row for every figure of every variant and seed, the means over seeds, and whether one variant forgets little.

    Args:
        start: folder of the stage-3 model. data: folder with the demo's data. words: more `key=value` for every
            training. limit: questions of a test set, default all of them.
    """
    out, start, data = out.absolute(), start.absolute(), data.absolute()
    before, medical_before = scores(start, data, out / "start.json", limit)
    rows = [Number("forgetting: documents of the start", "", before, f"eval/run.py --model {start.name}")]
    rows.append(Number("forgetting: medical of the start", "", medical_before, rows[0].command))
    drops = {}
    for name, own in VARIANTS.items():
        command = " ".join(["training/stage4.py --config", RECIPE, *own, *words])
        after = {}
        for seed in seeds:
            model = out / f"{name}-{seed}"
            if not (model / "throughput.json").is_file():
                places = (f"model={start}", f"output_dir={model}", f"data.root={data}", f"seed={seed}")
                launcher = (Path(sys.executable).with_name("deepspeed"), "--num_accelerators", 2)
                run(*launcher, "training/stage4.py", "--config", RECIPE, *places, *own, *words)
            after[seed] = scores(model, data, out / f"{name}-{seed}.json", limit)
        for seed, (documents, medical) in after.items():
            title = f"forgetting {name}, seed {seed}:"
            rows.append(Number(f"{title} documents", "", documents, command))
            rows.append(Number(f"{title} documents minus start", "", documents - before, command))
            rows.append(Number(f"{title} medical", "", medical, command))
        drops[name] = mean(before - documents for documents, _ in after.values())
        rows.append(Number(f"forgetting {name}, mean: documents minus start", "", -drops[name], command))
        rows.append(Number(f"forgetting {name}, mean: medical", "", mean(m for _, m in after.values()), command))
    best = min(drops, key=drops.get)
    rows.append(
        Number(f"forgetting: smallest mean loss of documents ({best})", f"<= {KEPT}", drops[best], rows[0].command)
    )
    return [Number(row.name, row.target, round(row.value, 4), row.command) for row in rows]


if __name__ == "__main__":
    print(table(forgetting_numbers(*(Path(word) for word in sys.argv[1:4]))))
