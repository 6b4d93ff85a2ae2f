"""The process a stage runs in: launcher variables, device, threads, and what DeepSpeed may build at start-up.

This is the one place of `training` that reads and writes environment variables. It must run before deepspeed is
imported, since DeepSpeed picks its accelerator and decorates its kernels at import.
"""

import logging
import os
import sys
from dataclasses import dataclass

import torch

from training.launchers import accelerate_variables, slurm_variables

SHM_OP = "deepspeed_shm_comm"


@dataclass(frozen=True)
class Machine:
    """Where this process stands."""

    rank: int
    local_rank: int
    world_size: int
    device: str  # "cuda" or "cpu"
    launched: bool  # one of the processes of a launcher: deepspeed, torchrun, accelerate or srun

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def prepare_process(local_rank: int | None = None) -> Machine:
    """Read the launcher's variables, settle device and threads-related switches; idempotent.

    Raises:
        RecipeError: a launcher started this process in a way that cannot train what was asked for.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if local_rank is not None and "LOCAL_RANK" not in os.environ:
        os.environ["LOCAL_RANK"] = str(local_rank)
    for name in accelerate_variables(os.environ, device):
        del os.environ[name]
    os.environ.update(slurm_variables(os.environ, torch.cuda.device_count()))
    launched = "WORLD_SIZE" in os.environ and "RANK" in os.environ
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # DeepSpeed's ZeRO runs Muon's compiled Newton-Schulz by itself; on CPU compiling costs 20 s and gains nothing.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    return Machine(
        rank=int(os.environ.get("RANK", 0)),
        local_rank=int(os.environ.get("LOCAL_RANK", 0)),
        world_size=int(os.environ.get("WORLD_SIZE", 1)),
        device=device,
        launched=launched,
    )


def visible_gpus() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, where there are GPUs; else []."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "") if torch.cuda.device_count() else ""
    return [name.strip() for name in named.split(",") if name.strip()]


def limit_threads(machine: Machine, threads: int) -> None:
    """Torch threads of a CPU process; processes that share cores must not each take all of them."""
    if machine.device == "cpu":
        torch.set_num_threads(threads)


def avoid_start_up_builds() -> None:
    """Keep DeepSpeed from compiling its shared-memory communication for CPU processes at the first start.

    The build takes about 90 s, and one that was killed leaves a lock on which every later start hangs. gloo does the
    same work (a few ms for a small model). An op that was compiled when deepspeed was installed is used.
    """
    import deepspeed
    from deepspeed.git_version_info import installed_ops

    if not installed_ops.get(SHM_OP, False):
        deepspeed.ops.__compatible_ops__[SHM_OP] = False


def quiet_libraries() -> None:
    """Libraries report warnings only; the stage prints what a person wants to see."""
    import warnings

    import transformers

    transformers.logging.set_verbosity_warning()
    transformers.logging.disable_progress_bar()
    for name in ("DeepSpeed", "accelerate", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)


def stage_logger(machine: Machine) -> logging.Logger:
    """The logger of a stage: rank 0 writes to stderr, the others only warnings."""
    logger = logging.getLogger("training")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        prefix = "" if machine.is_main else f"[rank {machine.rank}] "
        handler.setFormatter(logging.Formatter(prefix + "%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO if machine.is_main else logging.WARNING)
    return logger
