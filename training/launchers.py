"""What launchers leave in the environment: Slurm's srun, which sets no RANK, and accelerate, which brings settings.

`deepspeed` and `torchrun` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, which is all that is needed.
The functions take the environment as a mapping; only `training.environment` writes the real one.
"""

import re
from collections.abc import Mapping

from training.recipe import RecipeError

PORTS = range(15000, 25000)  # below those that Linux hands out by itself


def slurm_variables(environment: Mapping[str, str], devices: int) -> dict[str, str]:
    """The variables that torch.distributed needs, from those of an `srun` step of several tasks; else {}.

    Args:
        devices: GPUs that this process can see. With `--gpus-per-task=1` it is one, and the process takes that one.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS")  # absent in a batch script, which is not one of the processes
    if "RANK" in environment or tasks is None or int(tasks) < 2:
        return {}
    local = int(environment.get("SLURM_LOCALID", 0))
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "localhost"
    port = PORTS[int(environment.get("SLURM_JOB_ID", 0)) % len(PORTS)]
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": str(local % devices if devices else local),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(nodes),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }


def first_host(nodes: str) -> str:
    """First host of a Slurm node list: `gpu[03-06,10],cpu1` -> `gpu03` (as `scontrol show hostnames` prints it)."""
    first = re.match(r"(?:[^\[,]|\[[^\]]*\])+", nodes)
    if first is None:
        raise RecipeError(f"cannot read a host name from Slurm's node list {nodes!r}: set MASTER_ADDR")
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first.group())


def accelerate_variables(environment: Mapping[str, str], device: str) -> list[str]:
    """Names of accelerate's settings, which are taken out of the environment: the recipe decides them.

    Left in place they would change precision, accumulation or sharding behind the recipe's back.

    Raises:
        RecipeError: `accelerate launch` started a single process on a CPU machine, whatever number was asked for.
    """
    names = [name for name in environment if name.startswith(("ACCELERATE_", "FSDP_"))]
    if names and device == "cpu" and "RANK" not in environment and "MASTER_ADDR" in environment:
        raise RecipeError(
            "`accelerate launch` starts one process on a CPU machine, whatever --num_processes says: use "
            "`accelerate launch --use_deepspeed --num_processes N`, `torchrun --nproc_per_node N`, or python alone"
        )
    return names
