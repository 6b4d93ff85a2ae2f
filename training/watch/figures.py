"""What every log entry says beside loss and learning rate: speed, memory, loss per source, rate of each group.

Added to `log_history` of trainer_state.json and, since this callback comes first, to what tensorboard, wandb and
trackio are given.
"""

from collections.abc import Callable

from transformers import TrainerCallback

from training.watch.throughput import Throughput

SPEED = ("tokens_per_second", "real_token_share", "samples_per_second", "seconds_per_step", "data_wait_share")
DEVICE = ("memory_gb", "tflops_per_device", "mfu")


class Figures(TrainerCallback):
    """Fills the logs of all ranks in the same way; the reading is done by all of them together.

    Args:
        source_losses: () -> {source: mean loss of a labelled token since the last call}, called by all ranks.
        rates: () -> {name of an optimizer group: its learning rate}.
        packing: () -> the loader's report; of packed rows it says how full this process's were.
        distilled: () -> the figures of a distillation since the last call, called by all ranks.
    """

    def __init__(
        self, throughput: Throughput, source_losses: Callable[[], dict[str, float]], rates: Callable[[], dict],
        packing: Callable[[], dict] = dict, distilled: Callable[[], dict[str, float]] = dict,
    ):  # fmt: skip
        self.throughput, self.source_losses, self.rates, self.packing = throughput, source_losses, rates, packing
        self.distilled = distilled
        self.used: dict[str, float] = {}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.used = self.rates()  # of this step: when it is logged the schedule has gone on

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs is None or "loss" not in logs:
            return
        figures = self.throughput.interval()
        more = {name: figures[name] for name in (*SPEED, *DEVICE) if name in figures}
        if packed := self.packing().get("packing"):
            more["packing_fill"] = packed["fill"]
        more |= {f"source_loss/{name}": round(loss, 6) for name, loss in sorted(self.source_losses().items())}
        more |= self.distilled()
        more |= {f"lr/{name}": rate for name, rate in self.used.items()}
        logs.update(more)
        if state.log_history:
            state.log_history[-1].update(more)


def group_rates(optimizer) -> dict[str, float]:
    """Learning rate by name of the optimizer's groups; those of one name and rate, as ZeRO may split them, once."""
    rates: dict[str, float] = {}
    for index, group in enumerate(getattr(optimizer, "param_groups", [])):
        rates[group.get("name") or str(index)] = float(group["lr"])
    return rates
