"""Adapter folders: a LoRA stage teaches a trained model other answers, on two sharded processes as on one; its folder
opens as the model that was trained; merging keeps the logits.

    python tests/check/adapter_numbers.py runs/check/adapters
"""

import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402
from tests.helpers.stage_runs import PROBE, launch, losses, mixed_corpus, save_small_vlm  # noqa: E402

BASE_STEPS, STEPS = 300, 60
FAMILIES = ("nemotron_h", "llama", "bamba", "zamba2", "granite", "gemma2")
STAGE = "tests/helpers/stage_probe.py, 60 steps, adapter.rank=4, projector and new rows in full, fp32"


def prepare(folder: Path) -> None:
    """A model that answers `number 3?`, and the same questions with other answers, which the adapters are to learn."""
    shutil.rmtree(folder, ignore_errors=True)
    save_small_vlm(folder / "start")
    for name, count in (("first", 24), ("other", 24), ("val", 6)):
        records = mixed_corpus(folder / name, n=count) / "records.jsonl"
        if name != "first":
            lines = records.read_text().splitlines()
            turned = [
                re.sub(r'"text": "(\d\d)"', lambda answer: f'"text": "{99 - int(answer[1])}"', line)
                for line in lines
            ]
            records.write_text("\n".join(turned) + "\n")
    words = (f"max_steps={BASE_STEPS}", "per_device_batch_size=4", "learning_rate=3e-3", "log_steps=20")
    run(folder, "base", f"model={folder / 'start'}", f"data.sources=[{{path: {folder / 'first'}}}]", *words)


def stage(folder: Path, out: str, *more: str, processes: int = 0) -> Path:
    """Run a LoRA stage; its output folder."""
    words = (
        f"model={folder / 'base'}", f"data.sources=[{{path: {folder / 'other'}}}]",
        f"data.eval_sources=[{{path: {folder / 'val'}}}]", f"max_steps={STEPS}", "log_steps=1", "learning_rate=1e-2",
        "adapter.rank=4", "adapter.alpha=16", "modules.vision.freeze=true", "modules.new_embeddings.freeze=false",
        "global_batch_size=4",
    )  # fmt: skip
    return run(folder, out, *words, *more, processes=processes)


def run(folder: Path, out: str, *words: str, processes: int = 0) -> Path:
    words = [f"output_dir={folder / out}", "data.max_length=256", *words]
    done = launch(PROBE, words, processes, STAGE_PROBE_OUT=str(folder / out / "probe"))
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return folder / out


def heldout(path: Path, moment: str) -> float:
    return json.loads((path / "heldout.json").read_text())[moment]["loss"]


def merge_of(adapter: Path, out: Path) -> float:
    """Largest change of a logit by `radio-vlm merge`, of what was written, relative to the largest logit."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from vlm.cli.main import main
    from vlm.cli.merge import check_inputs, logits

    if main(["merge", str(adapter), str(out)]):
        raise RuntimeError("radio-vlm merge failed")
    batches = check_inputs(AutoProcessor.from_pretrained(out), [])
    adapted, merged = (
        logits(AutoModelForImageTextToText.from_pretrained(path).eval(), batches) for path in (adapter, out)
    )
    return max(((a - b).abs().max() / a.abs().max()).item() for (_, a), (_, b) in zip(adapted, merged))


def family_errors(folder: Path) -> tuple[float, float]:
    """Over families with random adapters: opening the folder, and merging, relative to the largest logit."""
    from transformers import AutoModelForImageTextToText

    from tests.vlm.test_adapted_model import adapted, logits, worst
    from vlm.adapted_model import merge

    opening, merging = [], []
    for family in FAMILIES:
        model = adapted(folder / family / "base", family)
        model.save_pretrained(folder / family / "adapter")
        expected = logits(model)
        again = AutoModelForImageTextToText.from_pretrained(folder / family / "adapter")
        opening.append(worst(logits(again), expected))
        merging.append(worst(logits(merge(again)), expected))
    return max(opening), max(merging)


def adapter_numbers(out: Path) -> list[Number]:
    prepare(out)
    whole = stage(out, "lora", "per_device_batch_size=4")
    alone = losses(whole)
    fell = heldout(whole, "after") / heldout(whole, "before")
    rows = [
        ("LoRA stage: last loss / first", "<= 0.6", alone[STEPS] / alone[1], STAGE),
        ("LoRA stage: held-out loss after / before", "<= 0.6", fell, STAGE),
    ]
    for zero in ("zero2", "zero3"):
        found = losses(stage(out, zero, "per_device_batch_size=2", f"zero={zero}", processes=2))
        worst = max(abs(found[step] - alone[step]) for step in alone)
        rows.append((f"LoRA stage: {zero} on 2 processes, largest difference of a loss", "<= 1e-4", worst, STAGE))
    on = stage(out, "on", "per_device_batch_size=4", f"model={whole}", "max_steps=1")
    change = abs(heldout(on, "before") / heldout(whole, "after") - 1)
    rows.append(("LoRA stage: held-out loss of its folder opened again, relative change", "<= 1e-5", change, STAGE))
    name = "LoRA stage: largest change of a logit by merging, relative to the largest"
    rows.append((name, "<= 1e-4", merge_of(whole, out / "merged"), "radio-vlm merge ADAPTER OUT"))
    sizes = [path.stat().st_size for path in (whole / "adapter_model.safetensors", out / "base/model.safetensors")]
    rows.append(("LoRA stage: weights of its folder / of the base's", "", sizes[0] / sizes[1], STAGE))
    opened, merged = family_errors(out / "families")
    command = f"random adapters on {', '.join(FAMILIES)}"
    rows.append(("adapter folders opened: largest change of a logit, relative", "<= 1e-5", opened, command))
    rows.append(("adapter folders merged: largest change of a logit, relative", "<= 1e-5", merged, command))
    return [Number(*row[:3], row[3]) for row in rows]


if __name__ == "__main__":
    print(table(adapter_numbers(Path(sys.argv[1]))))
