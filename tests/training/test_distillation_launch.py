"""Self-distillation through the real deepspeed launcher: two CPU processes train as one, under ZeRO-2 and ZeRO-3, with
a second model as the teacher and with the student itself."""

import json
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.stage_runs import ROOT, launch, mixed_corpus, save_small_vlm

RECIPE = """
train:
  max_steps: 5
  per_device_batch_size: 1
  global_batch_size: 2
  learning_rate: 5.0e-3
  log_steps: 1
data:
  max_length: 256
  group_by_length: false
distill:
  weight: 2
  temperature: 2
watch:
  report_to: []
"""
OWN = ("adapter.rank=4", "modules.vision.freeze=true", "modules.projector.freeze=true")
BESIDE = ("adapter.rank=4", "modules.vision.freeze=true", "modules.new_embeddings.freeze=false")
TEACHERS = {"second": (), "own": OWN, "beside": BESIDE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distillation_launch")
    save_small_vlm(folder / "start")
    mixed_corpus(folder / "data")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def figures(folder: Path, out: str, *words: str, processes: int = 2) -> dict[int, tuple[float, float]]:
    """Step -> (loss, KL) of a stage of five steps of two samples, one of them often without a picture."""
    done = launch(ROOT / "training/stage4.py", [
        "--config", str(folder / "recipe.yaml"), f"model={folder / 'start'}", f"output_dir={folder / out}",
        f"data.sources=[{{path: {folder / 'data'}}}]", *words,
    ], processes)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    entries = json.loads((folder / out / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: (entry["loss"], entry["distill_kl"]) for entry in entries if "distill_kl" in entry}


@pytest.fixture(scope="module")
def single(folder):
    """teacher -> what one process says that takes both samples."""
    return cache(lambda teacher: figures(folder, f"{teacher}_single", *TEACHERS[teacher], processes=0))


@pytest.mark.parametrize("teacher, zero", [
    ("second", "zero2"), ("own", "zero3"),
    *(pytest.param(*pair, marks=pytest.mark.slow)
      for pair in (("second", "zero3"), ("own", "zero2"), ("beside", "zero2"), ("beside", "zero3"))),
])  # fmt: skip
def test_two_processes_train_as_one(folder, single, teacher, zero):
    found = figures(folder, f"{teacher}_{zero}", f"zero={zero}", *TEACHERS[teacher])
    assert len(found) == 5 and found[1][1] == pytest.approx(0, abs=1e-5) and found[5][1] > 1e-4
    for step, pair in single(teacher).items():
        assert found[step] == pytest.approx(pair, abs=1e-4), f"step {step}"
