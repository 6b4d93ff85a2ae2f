"""The commands of a pipeline, as a person could type them: build the first model, run a stage, evaluate."""

import socket
import sys
from pathlib import Path

from training.environment import visible_gpus
from training.pipeline.folder import Guard, Pipeline, build_flags
from training.pipeline.stages import PlannedStage
from training.recipe import RecipeError

ROOT = Path(__file__).resolve().parents[2]
DEEPSPEED = str(Path(sys.executable).with_name("deepspeed"))


def build_command(pipeline: Pipeline, out: str) -> list[str]:
    """`radio-vlm new` with the folder's `build:` section."""
    return [sys.executable, "-m", "vlm", "new", *build_flags(pipeline.build, out)]


def stage_command(stage: PlannedStage, processes: int, hostfile: str | None, resume: bool) -> list[str]:
    """One stage by the deepspeed launcher, on this machine or the hostfile's; plain python for one process that has no
    use for DeepSpeed. One process may have: offload and the bf16 weights of ZeRO are DeepSpeed's.

    Args:
        processes: on each machine.
    """
    script = [str(ROOT / "training/stage1.py"), "--config", str(stage.file.path), *stage.words]
    script += ["resume=true"] if resume else []
    if processes == 1 and hostfile is None and stage.recipe.train.zero == "none":
        return [sys.executable, *script]
    if hostfile is not None:
        return [DEEPSPEED, "--hostfile", hostfile, "--num_gpus", str(processes), *script]
    return [*launcher(processes), *script]


def launcher(processes: int) -> list[str]:
    """The deepspeed launcher for so many processes on this machine."""
    return [DEEPSPEED, *_share_of_this_machine(processes), "--master_port", str(free_port())]


def guard_command(guard: Guard, data_root: str, model: str, out: Path) -> list[str]:
    """The guard's evaluation of one model, by eval/run.py; a process of its own, for training knows no evaluation."""
    command = [sys.executable, str(ROOT / "eval/run.py"), "--model", model, "--out", str(out)]
    if guard.tasks:
        command += ["--tasks", ",".join(guard.tasks)]
        command += ["--data-root", data_root] if data_root else []
    for flag, names in (("--data", guard.data), ("--likelihood", guard.likelihood)):
        if names:
            command += [flag, ",".join(str(placed(name, data_root)) for name in names)]
    command += ["--limit", str(guard.limit)] if guard.limit is not None else []
    return [*command, "--batch-size", str(guard.batch_size), "--no-controls", "--no-progress"]


def _share_of_this_machine(processes: int) -> list[str]:
    """The launcher's flags for so many processes. Beside a number it would take the first GPUs there are, whatever
    CUDA_VISIBLE_DEVICES says, so those it says are named."""
    named = visible_gpus()
    if not named:
        return ["--num_accelerators", str(processes)]
    if not all(name.isdigit() for name in named):
        raise RecipeError(
            f"CUDA_VISIBLE_DEVICES = {','.join(named)}: the deepspeed launcher takes GPUs by their numbers only"
        )
    return ["--include", f"localhost:{','.join(named[:processes])}"]


def placed(name: str, root: str) -> Path:
    """A relative path starts from the data root, or from here if it is only found here."""
    below = Path(root) / name
    return Path(name) if Path(name).exists() and not below.exists() else below


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
