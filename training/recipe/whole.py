"""What one training stage is: nested dataclasses with a docstring under every field.

The docstrings are the only documentation of the options: `--help`, the error for an unknown key and the docs are made
from them (`training/recipe/loading.py`). Combinations that cannot work are refused here, before anything is loaded.
"""

from dataclasses import dataclass, field
from pathlib import Path

from training.recipe.adapter import Adapter, check_adapter
from training.recipe.checks import RecipeError, check_ranges, require
from training.recipe.data import Data
from training.recipe.distill import Distill, check_distill
from training.recipe.modules import MODULE_NAMES, Modules
from training.recipe.train import Train
from training.recipe.watch import Watch


@dataclass
class Recipe:
    """One training stage."""

    model: str = ""
    """Folder or hub id of the model to start from (an earlier stage's output_dir, or one made by `radio-vlm new`).
    An adapter folder: that adapter trains on, or with adapter.rank 0 is merged first."""
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
    adapter: Adapter = field(default_factory=Adapter)
    """LoRA and QLoRA."""
    distill: Distill = field(default_factory=Distill)
    """Self-distillation."""
    watch: Watch = field(default_factory=Watch)
    """Logs, predictions, guards."""

    def __post_init__(self) -> None:
        if self.train.zero.endswith("_offload") and self.uses_muon():
            raise RecipeError(
                f"train.zero = {self.train.zero} and optimizer = muon do not work together (Muon needs whole matrices "
                "at every step): use train.zero=zero2 or train.optimizer=adamw"
            )
        check_ranges(self, "{}", {"[0, inf)": ("seed",)})
        require(
            not isinstance(self.resume, str) or self.resume.lower() not in ("true", "false", "yes", "no", "on", "off"),
            f"resume = {self.resume!r} is text, which names a checkpoint: write true or false without quotes",
        )
        check_adapter(self.adapter, self.train, self.modules.text)
        check_distill(self.distill, self.adapter, self.model)
        compiled = self.compiled()
        require(
            not (compiled and self.train.zero.startswith("zero3")),
            f"modules.{(compiled or [''])[0]}.compile = true and train.zero = {self.train.zero} do not work together "
            "(ZeRO-3 gathers weights between the operations that a compiler would fuse): use train.zero=zero2, or "
            "leave compile out",
        )
        self.modules.check_new_embeddings(bool(self.adapter.rank))
        frozen = all(getattr(self.modules, name).freeze for name in MODULE_NAMES)
        if frozen and not self.adapter.rank:
            raise RecipeError(
                "modules.vision.freeze, modules.projector.freeze, modules.text.freeze and modules.new_embeddings.freeze"
                " are all true, so nothing trains: set at least one to false"
            )

    def compiled(self) -> list[str]:
        """Names of the modules that torch.compile is asked for."""
        return [name for name in MODULE_NAMES if getattr(self.modules, name).compile]

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
        require(
            steps > 0 and rest == 0,
            f"train.global_batch_size = {train.global_batch_size} is not a multiple of train.per_device_batch_size = "
            f"{train.per_device_batch_size} times {world_size} processes: change one of them",
        )
        return steps

    def check_runnable(self) -> None:
        """Raise RecipeError when a field that only a real run needs is missing."""
        cp = self.train.context_parallel
        require(
            cp == 1,
            f"train.context_parallel = {cp}: spreading one sample over several processes is not implemented, and "
            f"data.max_length = {self.data.max_length} needs it; lower that and set train.context_parallel=1",
        )
        require(bool(self.model), "model is empty: set it in the recipe or model=FOLDER on the command line")
        require(bool(self.output_dir), "output_dir is empty: set it in the recipe or output_dir=FOLDER")
        require(
            Path(self.output_dir).resolve() != Path(self.model).resolve(),
            f"output_dir = {self.output_dir} is the folder of model, which would be written over: give another folder",
        )
        require(bool(self.data.sources), "data.sources is empty: list at least one `- path: FOLDER`")
