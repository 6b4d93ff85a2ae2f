"""Held-out loss before the first and after the last step, written to `heldout.json`."""

import json
from pathlib import Path

from transformers import TrainerCallback


class HeldOut(TrainerCallback):
    """Measures the held-out loss before the first and after the last step and writes `heldout.json`."""

    def __init__(self, measure, folder: Path):
        """measure: () -> dict, called by all ranks at the same time; its result is the same on all of them."""
        self.measure, self.path = measure, folder / "heldout.json"

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:  # a resumed run keeps what the first start measured
            self._write(state, "before", self.measure())

    def on_train_end(self, args, state, control, **kwargs):
        self._write(state, "after", self.measure())

    def _write(self, state, moment: str, result: dict) -> None:
        if not state.is_world_process_zero:
            return
        record = json.loads(self.path.read_text(encoding="utf-8")) if moment == "after" and self.path.exists() else {}
        record[moment] = result
        if "before" in record and "after" in record:
            record["change"] = round(record["after"]["loss"] / max(record["before"]["loss"], 1e-9) - 1, 4)
        self.path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
