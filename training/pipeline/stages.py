"""The stages of a folder as they will run: each with its recipe, its command and what is already there of it."""

import json
from dataclasses import dataclass
from pathlib import Path

from training.deepspeed_file import deepspeed_config
from training.pipeline.folder import Pipeline, StageFile
from training.pipeline.marks import Mark, differences, read_mark, recipe_hash
from training.recipe import Recipe, RecipeError
from training.recipe.loading import load_recipe, to_dict

BUILT = "untrained"  # folder of the built model below --out


@dataclass
class PlannedStage:
    """A stage with the recipe it will run.

    words: the `key=value` words of its command. state: "new", "begun", "complete", "changed", "stale" or "foreign"; see
    `look`. why: that state in words.
    """

    file: StageFile
    recipe: Recipe
    words: list[str]
    state: str = "new"
    why: str = ""

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def output(self) -> Path:
        return Path(self.recipe.output_dir)

    def check_runnable(self) -> None:
        """Raise RecipeError, naming the file, when this stage cannot be run."""
        try:
            self.recipe.check_runnable()
            if self.recipe.train.zero != "none":
                deepspeed_config(self.recipe)
        except RecipeError as error:
            raise RecipeError(f"{self.file.path}: {error}") from None

    @property
    def hash(self) -> str:
        return recipe_hash(to_dict(self.recipe))


def plan_stages(
    pipeline: Pipeline, words: list[str] = (), out: str | None = None, model: str | None = None
) -> list[PlannedStage]:
    """Every stage with its words applied.

    Args:
        words: `key=value` for all stages, `STAGE:key=value` for one.
        out: folder below which every stage writes, and reads what the one before wrote; default: as the files say.
        model: what the first stage starts from; default: as its file says, or (with `out`) the built model.

    Raises:
        RecipeError: a stage does not start from what the one before writes; and those of `load_recipe`.
    """
    for word in words:
        key = word.split(":", 1)[-1].partition("=")[0]
        if key in ("model", "output_dir", "resume"):
            instead = {"model": "use --model FOLDER, of the first stage", "output_dir": "use --out FOLDER"}
            raise RecipeError(f"{word!r} cannot be set for a pipeline: {instead.get(key, 'it resumes by itself')}")
    planned: list[PlannedStage] = []
    for stage in pipeline.stages:
        own = words_of(stage.name, [one.name for one in pipeline.stages], words)
        if out is not None:
            own.append(f"output_dir={Path(out) / stage.name}")
        if planned and out is not None:
            own.append(f"model={planned[-1].output}")
        elif not planned and (model or out and pipeline.build):
            own.append(f"model={model or Path(out) / BUILT}")
        recipe = load_recipe(stage.path, own)
        if planned and Path(recipe.model) != planned[-1].output:
            raise RecipeError(
                f"{stage.path} starts from {recipe.model}, but {planned[-1].file.path} before it writes "
                f"{planned[-1].output}: set its model to that, or give the pipeline --out FOLDER"
            )
        planned.append(PlannedStage(stage, recipe, own))
    outputs = [stage.output for stage in planned]
    twice = next((path for path in outputs if outputs.count(path) > 1), None)
    if twice is not None:
        raise RecipeError(
            f"two stages of {pipeline.folder} write to {twice}: give each its own output_dir, or give the pipeline "
            "--out FOLDER"
        )
    return planned


def look(planned: list[PlannedStage]) -> None:
    """Sets `state` and `why` of every stage from what lies in its output folder.

    - new: nothing is there, or nothing that could be lost
    - begun: this recipe was begun on this model, and can be taken up again
    - complete: this recipe is finished
    - changed: another recipe was begun or finished there
    - stale: this recipe, but from another training of the stage before
    - foreign: something is there that does not say whether it is finished
    """
    before: str | None = None
    for stage in planned:
        mark = read_mark(stage.output) or _by_hand(stage)
        stage.state, stage.why = _state(stage, mark, before)
        before = mark.id if mark is not None and stage.state == "complete" else None


def _state(stage: PlannedStage, mark: Mark | None, before: str | None) -> tuple[str, str]:
    checkpoints = any(stage.output.glob("checkpoint-*"))
    if mark is None:
        weights = any((stage.output / name).exists() for name in ("config.json", "adapter_config.json"))
        if weights or checkpoints:
            return "foreign", f"{stage.output} holds something whose training is not known to be finished"
        return "new", ""
    if not mark.complete and not checkpoints:
        return "new", ""
    if mark.hash != stage.hash:
        return "changed", f"{stage.output} holds another recipe: {differences(stage.output, to_dict(stage.recipe))}"
    if mark.after is not None and before is not None and mark.after != before:
        return "stale", f"{stage.output} was trained from an earlier training of {stage.recipe.model}"
    return ("complete", "") if mark.complete else ("begun", "")


def _by_hand(stage: PlannedStage) -> Mark | None:
    """A stage that was run without the pipeline: finished if its last file was written after its recipe."""
    recipe, last = stage.output / "recipe.json", stage.output / "throughput.json"
    if not (recipe.is_file() and last.is_file() and last.stat().st_mtime >= recipe.stat().st_mtime):
        return None
    try:
        tree = json.loads(recipe.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return Mark(hash=recipe_hash(tree), id=f"by hand {last.stat().st_mtime_ns}", after=None, complete=True)


def words_of(name: str, names: list[str], words: list[str]) -> list[str]:
    """The words for all stages, then those for this one."""
    shared, own = [], []
    for word in words:
        stage, colon, rest = word.partition(":")
        if not colon or "=" in stage:
            shared.append(word)
        elif stage not in names:
            raise RecipeError(f"{word!r}: no stage {stage!r}; there are {', '.join(names)}")
        elif stage == name:
            own.append(rest)
    return shared + own
