"""Checkpoints to resume from: which are whole, and which is the newest."""

from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

COMPLETE = "complete"


class CompleteMark(TrainerCallback):
    """Marks a checkpoint as complete once every rank has written its part, so that resume never picks a torn one."""

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            (folder / COMPLETE).write_text(f"step {state.global_step}\n", encoding="utf-8")


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    """The complete checkpoint with the highest step, or None."""
    found = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (path / COMPLETE).exists()]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)
