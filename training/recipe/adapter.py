"""LoRA and QLoRA: small matrices beside the frozen ones of the language model."""

from dataclasses import dataclass

from training.recipe.checks import choice, require


@dataclass
class Adapter:
    """Low-rank adapters on the language model (LoRA). The projector trains in full unless it is frozen."""

    rank: int = 0
    """Rank of the adapters; 0: none, the language model trains as modules.text says."""
    alpha: int = 32
    """The adapters' product counts alpha / rank."""
    dropout: float = 0.0
    """Dropout of an adapter's input."""
    targets: list[str] | None = None
    """Last names of the layers that get adapters; default: those its family names. [all-linear]: all."""
    quantize: str | None = None
    """`nf4` or `int8`: hold the frozen language model in 4 or 8 bits (QLoRA; needs a GPU and bitsandbytes)."""

    def __post_init__(self) -> None:
        require(self.rank >= 0, f"adapter.rank = {self.rank} must be 0 or more")
        require(self.alpha > 0, f"adapter.alpha = {self.alpha} must be above 0")
        require(0 <= self.dropout < 1, f"adapter.dropout = {self.dropout} is not a share in [0, 1)")
        if self.quantize is not None:
            choice(self.quantize, ("nf4", "int8"), "adapter.quantize")
        require(
            self.quantize is None or self.rank > 0,
            f"adapter.quantize = {self.quantize} and adapter.rank = 0: quantized weights cannot train; set the rank",
        )
