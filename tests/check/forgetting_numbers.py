"""What stage 4 forgets of the document task, and what each remedy keeps: plain fine-tuning, replay, LoRA,
self-distillation, each alone, and the last beside replay.

    python tests/check/forgetting_numbers.py runs/check/forgetting runs/demo
"""

import shutil
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
LEARNED, KEPT = 0.95, 0.03  # medical accuracy, and what may be lost of the documents


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], cwd=ROOT, check=True)


def scores(model: Path, demo: Path, results: Path) -> tuple[float, float]:
    """(documents exact match, medical accuracy with experts) of a model folder on the demo's test sets."""
    data = ",".join(str(demo / f"data/{task}-test") for task in ("documents", "medical"))
    experts = ("--expert-weights", demo / "experts")
    run(sys.executable, "eval/run.py", "--model", model, "--data", data, *experts, "--no-controls", "--out", results)
    found = read_results(results, model.name).scores
    return found["documents"].value, found["medical"].value


def train(demo: Path, model: Path, seed: int, words: tuple[str, ...]) -> None:
    """Stage 4 from the demo's stage 3, as the demo runs it but for `words`; held-out losses are not asked for."""
    places = (f"model={demo / 'stage3'}", f"output_dir={model}", f"data.root={demo / 'data'}", f"seed={seed}")
    launcher = (Path(sys.executable).with_name("deepspeed"), "--num_accelerators", 2)
    run(*launcher, "training/stage4.py", "--config", RECIPE, *places, "data.eval_sources=[]", *words)


def forgetting_numbers(out: Path, demo: Path, seeds: tuple[int, ...] = (1, 2, 3)) -> list[Number]:
    """A row for every figure of every variant and seed, the means over seeds, and what the best variant forgets: of
    those that learned the medical task, the one that keeps most.

    Args:
        out: emptied first. demo: folder of a demo: its stage3, data and experts are used.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    out, demo = out.absolute(), demo.absolute()
    before, medical_before = scores(demo / "stage3", demo, out / "start.json")
    command = "eval/run.py --model stage3"
    rows = [("documents of the start", "", before, command), ("medical of the start", "", medical_before, command)]
    kept, learned = {}, {}
    for name, words in VARIANTS.items():
        command = " ".join(["training/stage4.py --config", RECIPE, *words])
        documents, medical = [], []
        for seed in seeds:
            train(demo, out / f"{name}-{seed}", seed, words)
            found = scores(out / f"{name}-{seed}", demo, out / f"{name}-{seed}.json")
            documents.append(found[0])
            medical.append(found[1])
            rows.append((f"{name}, seed {seed}: documents", "", documents[-1], command))
            rows.append((f"{name}, seed {seed}: medical", "", medical[-1], command))
        kept[name], learned[name] = mean(documents) - before, mean(medical)
        rows.append((f"{name}, mean: documents minus start", "", kept[name], command))
        rows.append((f"{name}, mean: medical", "", learned[name], command))
    best = max([name for name in VARIANTS if learned[name] >= LEARNED] or VARIANTS, key=kept.get)
    command = f"best variant: {best}"
    rows.append(("best variant: mean documents minus start", f">= -{KEPT}", kept[best], command))
    rows.append(("best variant: mean medical", f">= {LEARNED}", learned[best], command))
    return [Number(f"forgetting: {name}", target, round(value, 4), typed) for name, target, value, typed in rows]


if __name__ == "__main__":
    print(table(forgetting_numbers(Path(sys.argv[1]), Path(sys.argv[2]))))
