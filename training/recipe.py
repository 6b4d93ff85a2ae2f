"""What one training stage is: nested dataclasses with a docstring under every field.

The docstrings are the only documentation of the options: `--help`, the error for an unknown key and the docs are made
from them (`training/recipe_loading.py`). Combinations that cannot work are refused here, before anything is loaded.
"""

from dataclasses import dataclass, field

ZERO_CHOICES = ("none", "zero1", "zero2", "zero3", "zero3_offload")
MODULE_NAMES = ("vision", "projector", "text", "new_embeddings")


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the fields and the fix."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RecipeError(message)


def _choice(value: str, choices: tuple[str, ...], name: str) -> None:
    _require(value in choices, f"{name} = {value!r} is not one of {', '.join(choices)}")


@dataclass
class Source:
    """One entry of a data mixture."""

    path: str = ""
    """Dataset folder (records.jsonl), JSONL or LLaVA JSON file, or HF dataset folder; relative to data.root."""
    weight: float | None = None
    """Share of this source in the mixture, relative to the weights of the others; default: by its size."""
    repeats: float | None = None
    """How often this source is read in an epoch (fractions allowed); instead of weight."""
    limit: int | None = None
    """Use only the first N records."""
    media_root: str | None = None
    """Folder the images and videos are relative to; default: the folder of the file."""
    format: str | None = None
    """Name of the file format; default: recognised by its content."""
    split: str | None = None
    """Split of a Hugging Face dataset."""
    name: str | None = None
    """Name shown in reports; default: the name the records or the folder carry."""

    def __post_init__(self) -> None:
        _require(bool(self.path), "a data source needs a path: write `- path: FOLDER`")
        both = self.weight is not None and self.repeats is not None
        _require(not both, f"weight and repeats of {self.path} are both set; keep one of them")
        for name in ("weight", "repeats", "limit"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} of {self.path} is {value}; it must be above 0")

    def as_dict(self) -> dict:
        """The fields that are set, as the mixture takes them."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass
class Data:
    """What is read, and what happens to samples that cannot be used."""

    root: str | None = None
    """Folder that relative paths of sources start from; default: the current folder."""
    sources: list[Source] = field(default_factory=list)
    """The training mixture: a list of {path, weight, limit, ...}."""
    eval_sources: list[Source] = field(default_factory=list)
    """Held-out sources; their loss is measured before and after the stage and written to heldout.json."""
    eval_limit: int = 64
    """At most this many held-out samples of a source that sets no limit itself."""
    max_length: int = 2048
    """Longest sample in tokens, image tokens included; a longer one counts as bad (it is never cut)."""
    bad_share_limit: float = 0.02
    """Training stops when more than this share of the samples read so far is bad."""
    group_by_length: bool = True
    """Put samples of similar length into a batch, which saves padding; the order stays deterministic."""
    cache: bool = False
    """Keep encoded samples in memory after their first use; only for small corpora."""
    video_pruning: list[float] | None = None
    """[lowest, highest] share of video tokens left out (EVS), drawn anew for every video sample and epoch; default: the
    model's own video.pruning_rate. max_length counts the whole video."""
    num_workers: int = 0
    """Processes that prepare batches beside each training process; 0 prepares them in the process itself."""

    def __post_init__(self) -> None:
        share = self.bad_share_limit
        _require(0 <= share <= 1, f"data.bad_share_limit = {share} is not a share in [0, 1]")
        if self.cache and self.num_workers:
            raise RecipeError(
                "data.cache = true and data.num_workers > 0 do not go together (each worker would fill its own cache): "
                "set data.num_workers=0 or data.cache=false"
            )
        rates = self.video_pruning
        _require(
            rates is None or (len(rates) == 2 and 0 <= rates[0] <= rates[1] < 1),
            f"data.video_pruning = {rates} is not [lowest, highest] with 0 <= lowest <= highest < 1",
        )
        _require(self.max_length > 0, f"data.max_length = {self.max_length} must be above 0")
        _require(self.num_workers >= 0, f"data.num_workers = {self.num_workers} must be 0 or more")


@dataclass
class Module:
    """How one part of the model is trained."""

    freeze: bool = False
    """Keep the weights of this part as they are."""
    lr: float | None = None
    """AdamW learning rate of this part; default: train.learning_rate."""
    muon_lr: float | None = None
    """Muon learning rate of the matrices of this part; default: train.muon_learning_rate."""
    weight_decay: float | None = None
    """Decay of the matrices of this part (norms, biases, embeddings and tables never decay); default:
    train.weight_decay."""
    optimizer: str | None = None
    """`adamw` or `muon` for the matrices of this part; default: train.optimizer."""

    def __post_init__(self) -> None:
        if self.optimizer is not None:
            _choice(self.optimizer, ("adamw", "muon"), "optimizer of a module")


@dataclass
class Modules:
    """The parts of the model. Everything that is not vision or projector counts as text."""

    vision: Module = field(default_factory=Module)
    """The RADIO encoder (`vision_model.`)."""
    projector: Module = field(default_factory=Module)
    """The projector (`multi_modal_projector.`)."""
    text: Module = field(default_factory=Module)
    """The language model (`language_model.`)."""
    new_embeddings: Module = field(default_factory=lambda: Module(freeze=True))
    """Input-embedding rows of the added special tokens, for stages in which `text` is frozen. Not frozen: only these
    rows move, the rest of the table stays bit-equal (its optimizer state is still allocated)."""


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
    """`cosine`, `linear`, `constant` or `wsd` (constant, then a linear decay over the last 20 %)."""
    warmup_ratio: float = 0.03
    """Share of max_steps over which the learning rate rises from 0."""
    max_grad_norm: float = 1.0
    """Gradient clipping; 0 switches it off. AdamW alone: by the global norm. With Muon: each AdamW group by itself,
    since Muon's update has a norm of its own that clipping would wrongly shrink."""
    zero: str = "zero2"
    """DeepSpeed configuration: none, zero1, zero2, zero3, zero3_offload (training/zero/*.json) or a JSON's path."""
    precision: str = "auto"
    """`auto` (bf16 on GPUs that can, else fp32), `bf16` or `fp32`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
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
    tensorboard: bool = True
    """Write tensorboard logs to output_dir/tensorboard."""

    def __post_init__(self) -> None:
        _choice(self.optimizer, ("adamw", "muon"), "train.optimizer")
        _choice(self.schedule, ("cosine", "linear", "constant", "wsd"), "train.schedule")
        _choice(self.precision, ("auto", "bf16", "fp32"), "train.precision")
        _require(
            self.zero in ZERO_CHOICES or self.zero.endswith(".json"),
            f"train.zero = {self.zero!r} is not one of {', '.join(ZERO_CHOICES)} and not a .json file",
        )
        for name in ("max_steps", "per_device_batch_size", "gradient_accumulation_steps", "log_steps"):
            _require(getattr(self, name) > 0, f"train.{name} = {getattr(self, name)} must be above 0")
        _require(
            self.save_total_limit >= 2,
            f"train.save_total_limit = {self.save_total_limit} must be 2 or more: a kill while saving must leave one",
        )
        _require(0 <= self.warmup_ratio < 1, f"train.warmup_ratio = {self.warmup_ratio} must be in [0, 1)")
        _require(
            self.global_batch_size is None or self.gradient_accumulation_steps == 1,
            "train.global_batch_size and train.gradient_accumulation_steps are both set: keep one of them",
        )
        _require(len(self.betas) == 2, f"train.betas = {self.betas} must be two numbers")
        _require(
            self.max_seconds is None or self.max_seconds > 0, f"train.max_seconds = {self.max_seconds} must be above 0"
        )


@dataclass
class Recipe:
    """One training stage."""

    model: str = ""
    """Folder or hub id of the model to start from (an earlier stage's output_dir, or one made by `radio-vlm new`)."""
    output_dir: str = ""
    """Folder for the result; it becomes a loadable model folder."""
    seed: int = 0
    """Seed of the data order and of every random choice."""
    resume: bool | str = False
    """true: go on from the newest checkpoint in output_dir if there is one; or the path of a checkpoint."""
    data: Data = field(default_factory=Data)
    """The data."""
    modules: Modules = field(default_factory=Modules)
    """Per-module learning rates and freezing."""
    train: Train = field(default_factory=Train)
    """The optimisation."""

    def __post_init__(self) -> None:
        if self.train.zero == "zero3_offload" and self.uses_muon():
            raise RecipeError(
                "train.zero = zero3_offload and optimizer = muon do not work together (Muon needs whole matrices at "
                "every step): use train.zero=zero2 or train.optimizer=adamw"
            )
        if all(getattr(self.modules, name).freeze for name in MODULE_NAMES):
            raise RecipeError(
                "modules.vision.freeze, modules.projector.freeze, modules.text.freeze and modules.new_embeddings.freeze"
                " are all true, so nothing trains: set at least one to false"
            )

    def uses_muon(self) -> bool:
        """Whether any trainable module hands its matrices to Muon."""
        parts = (getattr(self.modules, name) for name in ("vision", "projector", "text"))
        return any((part.optimizer or self.train.optimizer) == "muon" for part in parts if not part.freeze)

    def accumulation(self, world_size: int) -> int:
        """Forward passes that make one optimizer step on `world_size` processes."""
        train = self.train
        if train.global_batch_size is None:
            return train.gradient_accumulation_steps
        steps, rest = divmod(train.global_batch_size, train.per_device_batch_size * world_size)
        _require(
            steps > 0 and rest == 0,
            f"train.global_batch_size = {train.global_batch_size} is not a multiple of train.per_device_batch_size = "
            f"{train.per_device_batch_size} times {world_size} processes: change one of them",
        )
        return steps

    def check_runnable(self) -> None:
        """Raise RecipeError when a field that only a real run needs is missing."""
        _require(bool(self.model), "model is empty: set it in the recipe or model=FOLDER on the command line")
        _require(bool(self.output_dir), "output_dir is empty: set it in the recipe or output_dir=FOLDER")
        _require(bool(self.data.sources), "data.sources is empty: list at least one `- path: FOLDER`")
