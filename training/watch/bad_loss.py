"""What happens when a loss or a gradient goes wrong: the samples are named, and the step is stopped, skipped or noted.

A broken sample or a learning rate too high shows as one loss that is not finite, or far above its neighbours, and ruins
the weights at the same step. The judgement is made before the update, from a figure that all ranks share, so that no
rank goes on alone.
"""

import json
import logging
import math
from collections import deque
from pathlib import Path
from statistics import median

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from training.ranks import all_ranks, gather_objects, is_first, world_size
from vlm.errors import RadioVLMError

logger = logging.getLogger(__name__)
FILE = "bad_losses.jsonl"
WINDOW = 50  # steps whose median a spike is measured by
FEWEST = 10  # steps needed before there is a median worth the name
MOST_SKIPS = 10  # in a row: then it is not a few samples


class BadLoss(RadioVLMError):
    """Training was stopped because of its loss; the message names step, figure and samples."""


class BadLossGuard:
    """Judges every optimizer step before its update.

    Args:
        action: "stop", "skip" or "warn" (`watch.bad_loss`).
        spike_factor: a loss above this many times the median of the last 50 steps is a spike; 0: none is.
        folder: where `bad_losses.jsonl` is written, a line a bad step.
    """

    def __init__(self, action: str, spike_factor: float, folder: str | Path):
        self.action, self.spike_factor, self.path = action, spike_factor, Path(folder) / FILE
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.skipped_in_a_row = self.skipped = 0

    def check(self, step: int, loss: torch.Tensor, sample_ids: list[str], sources: list[str]) -> str:
        """"ok", "warn" or "skip", the same on all ranks; called by all of them once an optimizer step, and unless the
        answer is "skip" `check_gradients` after it.

        Args:
            step: number of the step, for the message.
            loss: () this rank's loss, such that the mean over the ranks is the step's.
            sample_ids, sources: of this rank's micro-batches of the step, sample by sample.

        Raises:
            BadLoss: on all ranks, when the action is "stop" or ten steps in a row were left out.
        """
        value = all_ranks(loss.detach().double().clone()).item() / world_size()
        usual = median(self.recent) if len(self.recent) >= FEWEST else None
        if not math.isfinite(value):
            return self._bad(step, "the loss is not finite", value, usual, sample_ids, sources)
        if self.spike_factor and usual is not None and value > self.spike_factor * usual:
            reason = f"the loss is {value / usual:.1f} times the median of the last {len(self.recent)} steps"
            verdict = self._bad(step, reason, value, usual, sample_ids, sources)
            if verdict == "warn":
                self.recent.append(value)
            return verdict
        self.recent.append(value)
        return "ok"

    def check_gradients(
        self, step: int, norm: float, sample_ids: list[str], sources: list[str], useless: bool = False
    ) -> str:
        """As `check`, for the norm of the reduced gradients, which is the same on all ranks.

        Args:
            useless: no update comes of a gradient that is not finite, whatever is asked for (DeepSpeed throws it away):
                where it would be "warn" the step is left out, and said to be.
        """
        if math.isfinite(norm):
            self.skipped_in_a_row = 0
            return "ok"
        return self._bad(step, "the gradient is not finite", norm, None, sample_ids, sources, useless)

    def state(self) -> dict:
        """JSON from which `load_state` goes on in the same way."""
        return {"recent": list(self.recent), "in_a_row": self.skipped_in_a_row, "skipped": self.skipped}

    def load_state(self, state: dict) -> None:
        self.recent = deque(state["recent"], maxlen=WINDOW)
        self.skipped_in_a_row, self.skipped = state["in_a_row"], state["skipped"]

    def _bad(
        self, step: int, reason: str, value: float, usual: float | None, sample_ids: list[str], sources: list[str],
        useless: bool = False,
    ) -> str:  # fmt: skip
        action = self.action
        if action == "skip":
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row > MOST_SKIPS:
                action = "stop"
                reason += f", and so were the {MOST_SKIPS} steps before: this is not a matter of single samples"
        elif action == "warn" and useless:
            action = "skip"
        gathered = gather_objects(list(zip(sample_ids, sources, strict=True)))
        samples = [
            {"id": one, "source": source, "rank": rank} for rank, rows in enumerate(gathered) for one, source in rows
        ]
        message = f"step {step}: {reason} ({value:.4g}); samples: {_listed(samples)}; all are in {self.path}"
        if is_first():
            record = {"step": step, "reason": reason, "value": _plain(value), "median": usual, "action": action}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**record, "samples": samples}, ensure_ascii=False) + "\n")
        if action == "stop":
            raise BadLoss(
                f"{message}. The weights are those before this step. Look at the samples (radio-vlm check-data), lower "
                "the learning rate, or go on from the last checkpoint without this step: resume=true "
                "watch.bad_loss=skip"
            )
        logger.warning("%s%s", message, "; the step was left out" if action == "skip" else "")
        return action


class BadLossMemory(TrainerCallback, ExportableState):
    """Keeps the guard's memory in the checkpoints' trainer_state.json."""

    def __init__(self, guard: BadLossGuard):
        self.guard = guard

    def state(self) -> dict:
        return {"args": {}, "attributes": self.guard.state()}

    def on_train_begin(self, args, state, control, **kwargs):
        stored = (state.stateful_callbacks or {}).get(type(self).__name__)
        if state.global_step > 0 and stored:
            self.guard.load_state(stored["attributes"])


def _listed(samples: list[dict], most: int = 16) -> str:
    """The samples by source: `documents: a, b; text: c`."""
    by_source: dict[str, list[str]] = {}
    for sample in samples[:most]:
        by_source.setdefault(sample["source"], []).append(sample["id"])
    words = "; ".join(f"{source}: {', '.join(ids)}" for source, ids in by_source.items())
    return words + (f" and {len(samples) - most} more" if len(samples) > most else "")


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
