"""Optimisation, length and bookkeeping of a stage."""

from dataclasses import dataclass, field

from training.recipe.checks import check_ranges, choice, require

ZERO_CHOICES = ("none", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")


@dataclass
class Train:
    """Optimisation, length and bookkeeping of the stage."""

    max_steps: int = 100
    """Number of optimizer steps; the schedule spans them."""
    max_seconds: float | None = None
    """Stop cleanly after this many seconds of training, even if max_steps is not reached."""
    per_device_batch_size: int = 8
    """Samples a process takes in one forward pass."""
    gradient_accumulation_steps: int = 1
    """Forward passes that make one optimizer step."""
    global_batch_size: int | None = None
    """Samples of one optimizer step over all processes; gradient_accumulation_steps then follows from the number of
    processes."""
    optimizer: str = "adamw"
    """`adamw`, or `muon` for the hidden matrices (convolutions, embeddings, heads, tables, norms stay with AdamW)."""
    learning_rate: float = 1e-4
    """AdamW learning rate of every module that names none."""
    muon_learning_rate: float = 0.02
    """Muon learning rate of every module that names none."""
    weight_decay: float = 0.0
    """Decoupled weight decay of every module that names none."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """AdamW's two moment decays."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    muon_momentum: float = 0.95
    """Muon's momentum; one value for all modules (DeepSpeed's ZeRO-3 demands it)."""
    schedule: str = "cosine"
    """`cosine`, `linear`, `constant` or `wsd` (constant, then a linear decay over the last decay_ratio)."""
    decay_ratio: float = 0.2
    """Share of max_steps over which `wsd` decays at the end."""
    min_lr_ratio: float = 0.0
    """Lowest learning rate of cosine, linear and wsd, as a share of the highest."""
    warmup_ratio: float = 0.03
    """Share of max_steps over which the learning rate rises from 0."""
    loss_average: str = "token"
    """What counts alike in the loss: `token`, `sample` (every sample once, however long), or `turn` (an answer of n
    tokens counts sqrt(n), as Nemotron VL's loss scaling). Over all processes and micro-batches of a step."""
    z_loss: float = 0.0
    """Weight of the squared log of the softmax's denominator, which keeps logits small."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the trained weights with this decay; saved to output_dir/ema."""
    max_grad_norm: float = 1.0
    """Gradient clipping; 0 switches it off. AdamW alone: by the global norm. With Muon: each AdamW group by itself,
    since Muon's update has a norm of its own that clipping would wrongly shrink."""
    zero: str = "zero2"
    """What of optimizer (zero1), gradients (zero2) and weights (zero3) the processes share out instead of repeating:
    none, zero1, zero2, zero2_offload (optimizer in CPU memory), zero3, zero3_offload (weights too), or the path of a
    DeepSpeed configuration (as training/zero/*.json). Without a launcher there is nothing to share out, and offload is
    refused."""
    precision: str = "auto"
    """`auto` (bf16 on GPUs that can, else fp32), `bf16` or `fp32`. Under bf16 the optimizer keeps weights in fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory; modules.<name>.gradient_checkpointing overrides it."""
    context_parallel: int = 1
    """Processes that share one sample's context. Only 1 can be run: a recipe that names more is refused with the
    reason."""
    attention: str | None = None
    """attn_implementation of the model; default: the library's choice (sdpa)."""
    threads_per_rank: int = 1
    """Torch threads of a process on a CPU machine; two processes of one thread beat one of two."""
    save_steps: int = 0
    """Write a checkpoint to resume from every N steps; 0 writes none."""
    save_total_limit: int = 2
    """Keep this many checkpoints."""
    log_steps: int = 5
    """Log loss, learning rate and throughput every N steps."""

    def __post_init__(self) -> None:
        choice(self.optimizer, ("adamw", "muon"), "train.optimizer")
        choice(self.schedule, ("cosine", "linear", "constant", "wsd"), "train.schedule")
        choice(self.loss_average, ("token", "sample", "turn"), "train.loss_average")
        choice(self.precision, ("auto", "bf16", "fp32"), "train.precision")
        require(
            self.zero in ZERO_CHOICES or self.zero.endswith(".json"),
            f"train.zero = {self.zero!r} is not one of {', '.join(ZERO_CHOICES)} and not a .json file",
        )
        check_ranges(
            self,
            "train.{}",
            {
                "(0, inf)": (
                    "max_steps", "max_seconds", "per_device_batch_size", "gradient_accumulation_steps",
                    "global_batch_size", "log_steps", "eps", "context_parallel", "threads_per_rank",
                ),
                "[0, inf)": (
                    "learning_rate", "muon_learning_rate", "weight_decay", "max_grad_norm", "z_loss", "save_steps",
                ),
                "[0, 1)": ("betas", "muon_momentum", "warmup_ratio"),
                "[0, 1]": ("min_lr_ratio",),
                "(0, 1)": ("ema_decay",),
                "(0, 1]": ("decay_ratio",),
            },
        )  # fmt: skip
        require(len(self.betas) == 2, f"train.betas = {self.betas} must be two numbers")
        require(
            self.save_total_limit >= 2,
            f"train.save_total_limit = {self.save_total_limit} must be 2 or more: a kill while saving must leave one",
        )
        require(
            self.global_batch_size is None or self.gradient_accumulation_steps == 1,
            "train.global_batch_size and train.gradient_accumulation_steps are both set: keep one of them",
        )
