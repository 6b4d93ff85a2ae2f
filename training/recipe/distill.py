"""Self-distillation: the model a stage starts from stays its teacher, so that what it knew is not forgotten."""

from dataclasses import dataclass

from training.distillation.targets import target_names
from training.recipe.checks import check_ranges, choice, require


@dataclass
class Distill:
    """Self-distillation. At labelled tokens the loss gets weight * temperature² * KL(teacher || student) beside its
    cross entropy, on the same samples and divided by the same number of tokens. The teacher runs every batch too, which
    costs a forward pass without gradients; with adapter.rank > 0 it is the model without its adapters, else a second
    copy of the weights on every GPU."""

    weight: float = 0.0
    """Weight of the divergence; 0: no teacher."""
    temperature: float = 1.0
    """Both distributions are softened by it (the logits are divided by it)."""
    teacher: str | None = None
    """Folder or hub id of the teacher; default: the model that the stage starts from."""
    targets: str = "self"
    """What the student is held to: `self` (the teacher's distribution), `agreed` (the same, only where the teacher's
    likeliest token is the label), `swapped` (the same, label and likeliest token having changed their places)."""
    sources: list[str] | None = None
    """Names of the sources on whose samples the divergence is asked, as reports show them; default: all."""

    def __post_init__(self) -> None:
        check_ranges(self, "distill.{}", {"[0, inf)": ("weight",), "(0, inf)": ("temperature",)})
        choice(self.targets, target_names(), "distill.targets")
        require(self.sources != [], "distill.sources is empty: name sources, or leave it out to ask on all of them")


def check_distill(distill: Distill, adapter, model: str) -> None:
    """Raise RecipeError for what a teacher cannot be combined with. adapter: `Adapter`. model: of the recipe."""
    if not distill.weight:
        return
    require(
        adapter.quantize is None or distill.teacher in (None, model),
        f"adapter.quantize = {adapter.quantize} and distill.teacher = {distill.teacher} do not work together (a second "
        "model would be held in full precision beside the quantized one): leave distill.teacher out, the teacher is "
        "then the quantized model without its adapters",
    )
