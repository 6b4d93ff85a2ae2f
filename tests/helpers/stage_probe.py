"""A stage with a witness: writes down what DeepSpeed's optimizer really holds and which samples each rank saw.

STAGE_PROBE_OUT: folder for `rank<N>.json`. STAGE_PROBE_KILL: "rank:step" at which that rank kills itself with SIGKILL,
or "rank:step:SIGNAL" with another signal.
"""

import json
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from transformers import TrainerCallback  # noqa: E402

from training.run import run_stage  # noqa: E402
from training.trainer import StageTrainer  # noqa: E402


def described_groups(optimizer) -> list[dict]:
    """Name, learning rate, decay, kind and element count of every group of the optimizer under ZeRO."""
    zero = getattr(optimizer, "optimizer", optimizer)
    groups = getattr(zero, "optimizer", zero).param_groups
    held = getattr(zero, "bit16_groups", None)  # ZeRO-1 and 2: the model's parameters behind each flat shard
    described = []
    for index, group in enumerate(groups):
        parameters = held[index] if held else group["params"]
        row = {key: group.get(key) for key in ("name", "initial_lr", "lr", "weight_decay", "use_muon")}
        row["tensors"], row["parameters"] = len(parameters), sum(p.numel() for p in parameters)
        row["shard"] = sum(p.numel() for p in group["params"])
        row["shapes"] = [list(p.shape) for p in parameters]
        described.append(row)
    return described


class Witness(TrainerCallback):
    def __init__(self):
        self.seen: list[list[str]] = []
        self.rank = int(os.environ.get("RANK", 0))

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        self.groups = described_groups(optimizer)
        self.name = type(optimizer).__name__, type(getattr(optimizer, "optimizer", None)).__name__

    def on_step_end(self, args, state, control, **kwargs):
        if not os.environ.get("STAGE_PROBE_KILL"):
            return
        rank, step, *name = os.environ["STAGE_PROBE_KILL"].split(":")
        if state.global_step == int(step) and self.rank == int(rank):
            os.kill(os.getpid(), getattr(signal, name[0] if name else "SIGKILL"))

    def on_train_end(self, args, state, control, **kwargs):
        record = {"groups": self.groups, "optimizer": self.name, "seen": self.seen}
        folder = Path(os.environ["STAGE_PROBE_OUT"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"rank{self.rank}.json").write_text(json.dumps(record))


class WitnessedTrainer(StageTrainer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.witness = Witness()
        self.add_callback(self.witness)

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.witness.seen.append([inputs["sample_ids"], "pixel_values" in inputs])
        return super().compute_loss(model, inputs, *args, **kwargs)


if __name__ == "__main__":
    import training.trainer

    training.trainer.StageTrainer = WitnessedTrainer
    sys.exit(run_stage(sys.argv[1:]))
