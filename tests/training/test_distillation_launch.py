"""Self-distillation through the real deepspeed launcher: two CPU processes train as one, under ZeRO-2 and ZeRO-3, with
a second model as the teacher and with the student itself."""

import json
from pathlib import Path

import pytest

from tests.helpers.stage_runs import ROOT, launch, mixed_corpus, save_small_vlm

OWN = ("adapter.rank=4", "modules.vision.freeze=true", "modules.projector.freeze=true")
BESIDE = ("adapter.rank=4", "modules.vision.freeze=true", "modules.new_embeddings.freeze=false")
TEACHERS = {"second": (), "own": OWN, "beside": BESIDE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distillation_launch")
    save_small_vlm(folder / "start")
    mixed_corpus(folder / "data")
    return folder


def figures(folder: Path, out: str, *words: str, processes: int = 2) -> dict[int, tuple[float, float]]:
    """Step -> (loss, KL) of a stage of five steps of two samples, one of them often without a picture."""
    done = launch(ROOT / "training/stage4.py", [
        "--config", str(ROOT / "tests/training/distillation_launch.yaml"), f"model={folder / 'start'}",
        f"output_dir={folder / out}", f"data.sources=[{{path: {folder / 'data'}}}]", *words,
    ], processes, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    entries = json.loads((folder / out / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: (entry["loss"], entry["distill_kl"]) for entry in entries if "distill_kl" in entry}


@pytest.fixture(scope="module")
def single(folder) -> dict:
    """What one process says that takes both samples."""
    return {name: figures(folder, f"{name}_single", *words, processes=0) for name, words in TEACHERS.items()}


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_two_processes_train_as_one(folder, single, zero, teacher):
    found = figures(folder, f"{teacher}_{zero}", f"zero={zero}", *TEACHERS[teacher])
    assert len(found) == 5 and found[1][1] == pytest.approx(0, abs=1e-5) and found[5][1] > 1e-4
    for step, pair in single[teacher].items():
        assert found[step] == pytest.approx(pair, abs=1e-4), f"step {step}"
