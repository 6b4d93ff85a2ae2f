"""Checkpoints to resume from: how one becomes complete, which are whole, which is the newest, which go.

A checkpoint is complete when the part of every rank is on the disk; then a file `complete` says so, and how the run was
laid out. Without that file it is a torn one, which is never resumed from. Checkpoints hold pickles (DeepSpeed's,
torch's): resume only from folders you trust.
"""

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training.durable import flush, vouch
from training.ranks import any_rank, barrier
from training.recipe import RecipeError

COMPLETE = "complete"


@dataclass(frozen=True)
class Layout:
    """What `complete` says: the step and time of a checkpoint, and how the run that wrote it was laid out.

    zero: ZeRO stage of DeepSpeed, 0 without it. global_batch_size: samples (packed: rows) of one optimizer step.
    """

    step: int
    time: float
    processes: int
    zero: int
    muon: bool
    global_batch_size: int


class Checkpoints(TrainerCallback):
    """Makes the trainer's checkpoints complete: room before, data position and mark after, then old ones go."""

    def __init__(self, trainer, layout: dict, keep: int, rank: int):
        """layout: the fields of `Layout` that do not change during the stage. keep: how many checkpoints to keep."""
        self.trainer, self.layout, self.keep, self.rank = trainer, layout, keep, rank

    def on_step_end(self, args, state, control, **kwargs):
        if not control.should_save:
            return
        folder = _folder(args, state)
        needed = checkpoint_bytes(self.trainer)
        short = 0
        if state.is_world_process_zero:
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left must not mix with the new files
            folder.parent.mkdir(parents=True, exist_ok=True)
            short = max(0, needed - shutil.disk_usage(folder.parent).free)
        if any_rank(short > 0, args.device):
            raise RecipeError(
                f"{folder} needs about {needed / 1e9:.1f} GB and the disk has less: free some space, then go on from "
                "the checkpoint before it with resume=true"
            )

    def on_save(self, args, state, control, **kwargs):
        folder = _folder(args, state)
        write_position(self.trainer.loader, folder, self.rank)
        flush(folder)  # each rank what it wrote, perhaps on another machine
        barrier()
        if state.is_world_process_zero:
            mark = asdict(Layout(step=state.global_step, time=time.time(), **self.layout))
            vouch(folder / COMPLETE, json.dumps(mark) + "\n")
            _remove_old(folder.parent, self.keep)


def _folder(args, state) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def checkpoint_bytes(trainer) -> int:
    """About how large a checkpoint will be: the weights twice (DeepSpeed's and ours; with adapters only those that
    train), fp32 weights and two moments of what trains."""
    from training.freezing import size_of
    from vlm.adapted_model import record_of

    model = trainer.accelerator.unwrap_model(trainer.model)
    written = [p for p in model.parameters() if p.requires_grad or record_of(model) is None]
    weights = sum(size_of(parameter) * parameter.element_size() for parameter in written)
    trained = sum(size_of(parameter) for parameter in model.parameters() if parameter.requires_grad)
    return (2 if trainer.is_deepspeed_enabled else 1) * weights + 12 * trained


def write_position(loader, folder: Path, rank: int) -> None:
    """Write where this rank's loader stands."""
    (folder / f"data_state_rank{rank}.json").write_text(json.dumps(loader.state_dict()) + "\n", encoding="utf-8")


def read_positions(folder: Path, processes: int) -> list[dict]:
    """Where the loaders of all ranks stood when the checkpoint was written.

    Raises:
        RecipeError: the position of a rank is missing or unreadable.
    """
    states = []
    for rank in range(processes):
        path = folder / f"data_state_rank{rank}.json"
        try:
            states.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"{path}: no data position to go on from ({error}); start over from the weights with model={folder} "
                "and another output_dir"
            ) from error
    return states


def layout_of(checkpoint: Path) -> Layout | None:
    """How a complete checkpoint was laid out; None for a torn one."""
    try:
        return Layout(**json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{checkpoint / COMPLETE} cannot be read: {error}") from error


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """The complete checkpoints of a stage, in the order in which they were written."""
    found = [path for path in _all(Path(output_dir)) if (path / COMPLETE).exists()]
    return sorted(found, key=lambda path: layout_of(path).time)


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    """The complete checkpoint written last, or None."""
    return next(reversed(complete_checkpoints(output_dir)), None)


def _all(output_dir: Path) -> list[Path]:
    return [path for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if re.fullmatch(r"\d+", path.name[11:])]


def _remove_old(output_dir: Path, keep: int) -> None:
    """Leave the newest `keep` complete checkpoints; torn ones and older ones go. The mark goes first."""
    kept = complete_checkpoints(output_dir)[-keep:]
    for path in _all(output_dir):
        if path not in kept:
            (path / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
