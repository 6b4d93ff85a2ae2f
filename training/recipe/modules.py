"""How each part of the model is trained: freezing, learning rates, memory."""

from dataclasses import dataclass, field, fields

from training.recipe.checks import check_ranges, choice, require

MODULE_NAMES = ("vision", "projector", "text", "new_embeddings")


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
    layer_decay: float | None = None
    """Learning rate of a block relative to that of the block behind it (0.9: earlier blocks move less); what stands
    before the first block counts as a block of its own."""
    norms_only: bool = False
    """Train the norms of this part (weights and biases) and nothing else of it."""
    gradient_checkpointing: bool | None = None
    """Recompute this part's activations in the backward pass; default: train.gradient_checkpointing."""
    compile: bool = False
    """torch.compile this part."""

    def __post_init__(self) -> None:
        ranges = {"[0, inf)": ("lr", "muon_lr", "weight_decay"), "(0, 1]": ("layer_decay",)}
        check_ranges(self, "{} of a module", ranges)
        require(
            not (self.freeze and self.norms_only),
            "freeze and norms_only of a module are both true: norms_only alone freezes everything but the norms",
        )
        if self.optimizer is not None:
            choice(self.optimizer, ("adamw", "muon"), "optimizer of a module")


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
    rows move, the rest of the table stays bit-equal (its optimizer state is still allocated). Of the options only
    freeze and lr mean something here."""

    def check_new_embeddings(self, adapted: bool) -> None:
        """Raise RecipeError for options of new_embeddings that would do nothing. adapted: LoRA freezes the text."""
        ours = {one.name: getattr(self.new_embeddings, one.name) for one in fields(Module)}
        given = {one.name: ours[one.name] for one in fields(Module) if ours[one.name] != one.default}
        for name, value in given.items():
            require(
                name in ("freeze", "lr"),
                f"modules.new_embeddings.{name} = {value} would do nothing (rows of a table train with AdamW, without "
                f"decay): leave it out; modules.new_embeddings knows freeze and lr",
            )
        alone = self.text.freeze or self.text.norms_only or adapted
        require(
            alone or "lr" not in given,
            f"modules.new_embeddings.lr = {given.get('lr')} and modules.text.freeze = false do not work together (the "
            "whole table trains, at the rate of the text): set modules.text.lr, or modules.text.freeze=true to train "
            "these rows alone",
        )
