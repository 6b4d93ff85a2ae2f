"""LoRA and QLoRA: small matrices beside the frozen ones of the language model."""

from dataclasses import dataclass

from training.recipe.checks import check_ranges, choice, require


@dataclass
class Adapter:
    """Low-rank adapters on the language model (LoRA). Its own weights stay frozen whatever modules.text.freeze says;
    modules.text.lr and weight_decay are those of the adapters. Projector, encoder and new_embeddings train in full
    unless they are frozen. output_dir becomes one adapter folder that holds all of it; `radio-vlm merge` makes a whole
    model of it."""

    rank: int = 0
    """Rank of the adapters; 0: none, the language model trains as modules.text says."""
    alpha: int = 32
    """The adapters' product counts alpha / rank."""
    dropout: float = 0.0
    """Dropout of an adapter's input."""
    targets: list[str] | None = None
    """Last names of the layers that get adapters; default: those its family names. [all-linear]: all but the head and
    the routers of experts."""
    quantize: str | None = None
    """`nf4` or `int8`: hold the frozen language model in 4 or 8 bits (QLoRA; needs a GPU and bitsandbytes). The adapter
    goes onto the unquantized model as well, and is merged into that."""

    def __post_init__(self) -> None:
        ranges = {"[0, inf)": ("rank",), "(0, inf)": ("alpha",), "[0, 1)": ("dropout",)}
        check_ranges(self, "adapter.{}", ranges)
        if self.quantize is not None:
            choice(self.quantize, ("nf4", "int8"), "adapter.quantize")
        require(
            self.quantize is None or self.rank > 0,
            f"adapter.quantize = {self.quantize} and adapter.rank = 0: quantized weights cannot train; set the rank",
        )


def check_adapter(adapter: Adapter, train, text) -> None:
    """Raise RecipeError for what adapters cannot be combined with. train, text: `Train` and `modules.text`."""
    if not adapter.rank:
        return
    require(
        (text.optimizer or train.optimizer) != "muon",
        f"adapter.rank = {adapter.rank} and optimizer = muon do not work together (Muon makes whole matrices "
        "orthogonal, an adapter is two thin ones): set modules.text.optimizer=adamw",
    )
    for name in ("norms_only", "layer_decay"):
        require(
            not getattr(text, name),
            f"adapter.rank = {adapter.rank} and modules.text.{name} do not work together: with adapters nothing else "
            f"of the language model trains; leave modules.text.{name} out",
        )
    require(
        adapter.quantize is None or not train.zero.startswith("zero3"),
        f"adapter.quantize = {adapter.quantize} and train.zero = {train.zero} do not work together (quantized weights "
        "cannot be cut into pieces): use train.zero=zero2",
    )
