"""Self-distillation through the real deepspeed launcher: two CPU processes train as one, under ZeRO-2 and ZeRO-3, with
a second model as the teacher and with the student itself."""

import json
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.small_training import ALONE
from tests.helpers.stage_runs import ROOT, launch, mixed_corpus, save_small_vlm
from training.recipe.loading import load_recipe
from training.stage import train_stage

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


def words(folder: Path, out: str, *more: str) -> list[str]:
    """A stage of five steps of two samples, one of them often without a picture."""
    return [
        f"model={folder / 'start'}", f"output_dir={folder / out}", f"data.sources=[{{path: {folder / 'data'}}}]", *more,
    ]  # fmt: skip


def figures(out: Path) -> dict[int, tuple[float, float]]:
    """Step -> (loss, KL)."""
    entries = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: (entry["loss"], entry["distill_kl"]) for entry in entries if "distill_kl" in entry}


@pytest.fixture(scope="module")
def single(folder):
    """teacher -> what one process says, which takes two micro-batches a step."""

    @cache
    def run(teacher: str) -> dict[int, tuple[float, float]]:
        train_stage(load_recipe(folder / "recipe.yaml", words(folder, teacher, *TEACHERS[teacher])), ALONE)
        return figures(folder / teacher)

    return run


@pytest.mark.parametrize("teacher, zero", [
    ("own", "zero3"),
    *(pytest.param(*pair, marks=pytest.mark.slow)
      for pair in (("own", "zero2"), ("beside", "zero2"), ("beside", "zero3"), ("second", "zero2"),
                   ("second", "zero3"))),
])  # fmt: skip
def test_two_processes_train_as_one(folder, single, teacher, zero):
    out = f"{teacher}_{zero}"
    more = words(folder, out, f"zero={zero}", *TEACHERS[teacher])
    done = launch(ROOT / "training/stage4.py", ["--config", str(folder / "recipe.yaml"), *more])
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    found = figures(folder / out)
    assert len(found) == 5 and found[1][1] == pytest.approx(0, abs=1e-5) and found[5][1] > 1e-4
    for step, pair in single(teacher).items():
        assert found[step] == pytest.approx(pair, abs=1e-4), f"step {step}"
