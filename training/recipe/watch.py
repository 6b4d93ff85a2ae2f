"""What is looked at while a stage runs, and what happens when its loss goes wrong."""

from dataclasses import dataclass, field

from training.recipe.checks import check_ranges, choice, require

REPORTERS = ("tensorboard", "wandb", "trackio")


@dataclass
class Watch:
    """Logs, sample predictions and the guard against bad losses."""

    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where figures go besides trainer_state.json: tensorboard (output_dir/tensorboard), wandb (offline without an API
    key), trackio (a local database); [] is none."""
    predictions_every: int = 0
    """Write answers of the model to held-out samples (without any: the first training samples), with their pictures,
    before the first step, every N steps and at the end, to output_dir/predictions and predictions.html; 0: none."""
    predictions: int = 4
    """How many samples are answered."""
    bad_loss: str = "stop"
    """What to do when the loss or the gradient is not finite, or a spike: `stop`, `skip` (the step changes nothing) or
    `warn`. The samples of the step are named in each case, and written to output_dir/bad_losses.jsonl."""
    spike_factor: float = 0.0
    """A loss above this many times the median of the last 50 steps is a spike; 0: none is."""
    peak_tflops: float | None = None
    """Dense bf16 peak of a device in TFLOP/s, for the model-flops utilisation; default: known for common GPUs, else it
    is not shown."""

    def __post_init__(self) -> None:
        for name in self.report_to:
            choice(name, REPORTERS, "watch.report_to")
        choice(self.bad_loss, ("stop", "skip", "warn"), "watch.bad_loss")
        ranges = {"[0, inf)": ("predictions_every", "spike_factor"), "(0, inf)": ("predictions", "peak_tflops")}
        check_ranges(self, "watch.{}", ranges)
        require(
            self.spike_factor == 0 or self.spike_factor > 1,
            f"watch.spike_factor = {self.spike_factor} must be above 1, or 0 for no limit",
        )
