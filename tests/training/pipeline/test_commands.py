"""The commands of a pipeline are those a person would type."""

import sys

import pytest

from training.pipeline.commands import ROOT, guard_command, stage_command
from training.pipeline.folder import Guard, StageFile
from training.pipeline.stages import PlannedStage
from training.recipe import Recipe, RecipeError, Train


def stage(zero: str = "zero2") -> PlannedStage:
    return PlannedStage(StageFile("s1", ROOT / "s1.yaml"), Recipe(train=Train(zero=zero)), ["max_steps=5"])


@pytest.fixture(autouse=True)
def no_choice_of_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_launcher_starts_what_needs_deepspeed_and_several_machines_have_a_hostfile():
    script = [str(ROOT / "training/stage1.py"), "--config", str(ROOT / "s1.yaml"), "max_steps=5"]
    assert stage_command(stage("none"), 1, None, resume=False) == [sys.executable, *script]
    for zero in ("zero2", "zero2_offload"):  # its memory is what was planned for, also of one process
        one = stage_command(stage(zero), 1, None, resume=False)
        assert one[1:3] == ["--num_accelerators", "1"] and one[5:] == script
    assert stage_command(stage("none"), 2, None, resume=False)[1:3] == ["--num_accelerators", "2"]
    two = stage_command(stage(), 2, None, resume=True)
    assert two[0].endswith("deepspeed") and two[1:4] == ["--num_accelerators", "2", "--master_port"]
    assert two[5:] == [*script, "resume=true"]
    nodes = stage_command(stage(), 8, "hosts", resume=False)
    assert nodes[1:] == ["--hostfile", "hosts", "--num_gpus", "8", *script]


def test_the_gpus_that_are_chosen_are_those_that_train(monkeypatch):
    """The launcher looks at CUDA_VISIBLE_DEVICES only where it is not told a number."""
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert stage_command(stage(), 2, None, resume=False)[1:3] == ["--num_accelerators", "2"]  # without GPUs
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert stage_command(stage(), 2, None, resume=False)[1:3] == ["--include", "localhost:3,5"]
    assert stage_command(stage(), 1, None, resume=False)[1:3] == ["--include", "localhost:3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(RecipeError, match="GPU-8932f937"):
        stage_command(stage(), 1, None, resume=False)


def test_the_guards_paths_start_from_the_data_root(tmp_path, monkeypatch):
    (tmp_path / "data/text").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    guard = Guard(tasks=["t"], data=["text", "here", "nowhere"], likelihood=["/abs/x"], limit=None)
    command = guard_command(guard, "data", "m", tmp_path / "r.json")
    assert command[command.index("--data") + 1] == "data/text,here,data/nowhere"
    assert command[command.index("--likelihood") + 1] == "/abs/x"
    assert command[command.index("--data-root") + 1] == "data" and "--limit" not in command
