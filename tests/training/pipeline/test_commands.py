"""The commands of a pipeline are those a person would type."""

import sys

from training.pipeline.commands import ROOT, guard_command, stage_command
from training.pipeline.folder import Guard, StageFile
from training.pipeline.stages import PlannedStage
from training.recipe import Recipe


def stage() -> PlannedStage:
    return PlannedStage(StageFile("s1", ROOT / "s1.yaml"), Recipe(), ["max_steps=5"])


def test_one_process_needs_no_launcher_and_several_machines_a_hostfile():
    alone = stage_command(stage(), 1, None, resume=False)
    script = [str(ROOT / "training/stage1.py"), "--config", str(ROOT / "s1.yaml"), "max_steps=5"]
    assert alone == [sys.executable, *script]
    two = stage_command(stage(), 2, None, resume=True)
    assert two[0].endswith("deepspeed") and two[1:4] == ["--num_accelerators", "2", "--master_port"]
    assert two[5:] == [*script, "resume=true"]
    nodes = stage_command(stage(), 8, "hosts", resume=False)
    assert nodes[1:] == ["--hostfile", "hosts", "--num_gpus", "8", *script]


def test_the_guards_paths_start_from_the_data_root(tmp_path, monkeypatch):
    (tmp_path / "data/text").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    guard = Guard(tasks=["t"], data=["text", "here", "nowhere"], likelihood=["/abs/x"], limit=None)
    command = guard_command(guard, "data", "m", tmp_path / "r.json")
    assert command[command.index("--data") + 1] == "data/text,here,data/nowhere"
    assert command[command.index("--likelihood") + 1] == "/abs/x"
    assert command[command.index("--data-root") + 1] == "data" and "--limit" not in command
