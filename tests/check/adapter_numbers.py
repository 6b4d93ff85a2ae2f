"""Adapter folders: a LoRA stage learns, on two sharded processes as on one; its folder opens as the model that was
trained; merging keeps the logits.

    python tests/check/adapter_numbers.py runs/check/adapters
"""

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402
from tests.helpers.stage_runs import PROBE, launch, losses, mixed_corpus, save_small_vlm  # noqa: E402

STEPS = 60
FAMILIES = ("nemotron_h", "llama", "bamba", "zamba2", "granite", "gemma2")
STAGE = "tests/helpers/stage_probe.py, 60 steps, adapter.rank=4, projector and new rows in full, fp32"


def stage(folder: Path, out: str, *more: str, processes: int = 0) -> Path:
    """Run a LoRA stage of the small model; its output folder."""
    words = [
        f"model={folder / 'base'}", f"output_dir={folder / out}", f"data.sources=[{{path: {folder / 'data'}}}]",
        f"data.eval_sources=[{{path: {folder / 'val'}}}]", "data.max_length=256", f"max_steps={STEPS}", "log_steps=1",
        "learning_rate=1e-2", "adapter.rank=4", "adapter.alpha=8", "modules.vision.freeze=true",
        "modules.new_embeddings.freeze=false", "global_batch_size=4", *more,
    ]  # fmt: skip
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
    shutil.rmtree(out, ignore_errors=True)
    save_small_vlm(out / "base")
    mixed_corpus(out / "data")
    mixed_corpus(out / "val", n=6)
    whole = stage(out, "lora", "per_device_batch_size=4")
    alone = losses(whole)
    fell = heldout(whole, "after") / heldout(whole, "before")
    rows = [
        ("LoRA stage: last loss / first", "<= 0.8", alone[STEPS] / alone[1], STAGE),
        ("LoRA stage: held-out loss after / before", "<= 0.8", fell, STAGE),
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
