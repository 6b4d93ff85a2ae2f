"""Whether what a pipeline reads is there, asked before its first stage: a missing folder of the last one would else be
found after days. Nothing is read here, and names on the hub are not looked up.
"""

from pathlib import Path

from training.data.sources import DataError, under_root
from training.data.sources.registry import HUB, source_class
from training.loading import HUB_ID
from training.pipeline.commands import placed
from training.pipeline.folder import FILE, Guard, Pipeline
from training.pipeline.stages import PlannedStage
from training.recipe import RecipeError

TASK_DATA = "runs/demo/data"  # where eval/run.py looks for tasks when it is told no folder


def check_stage(stage: PlannedStage, processes: int | None, made: list[Path]) -> None:
    """Raise RecipeError, naming the file, when a stage's data are missing or its batch does not fit the processes.

    Args:
        processes: all of them; None: not known.
        made: folders that this run writes before the stage; what lies there may come yet.
    """
    stage.check_runnable()
    recipe, data = stage.recipe, stage.recipe.data
    if processes is not None:
        try:
            recipe.accumulation(processes)
        except RecipeError as error:
            raise RecipeError(f"{stage.file.path}: {error}") from None
    replayed = data.replay.sources if data.replay.part else []
    lists = {"data.sources": data.sources, "data.replay.sources": replayed, "data.eval_sources": data.eval_sources}
    for key, sources in lists.items():
        for source in sources:
            spec = under_root(source.as_dict(), data.root)
            path = str(spec["path"])
            if path.startswith(HUB) or any(Path(path).is_relative_to(folder) for folder in made):
                continue
            try:
                source_class(spec)
            except (DataError, OSError) as error:
                raise RecipeError(
                    f"{stage.file.path}: {key}: {error}. Put the data there, or correct the path or data.root"
                ) from None


def check_model(stage: PlannedStage) -> None:
    """Raise RecipeError when the model that a stage starts from is no folder and no hub id."""
    model = stage.recipe.model
    if not HUB_ID.fullmatch(model) and not Path(model).is_dir():
        raise RecipeError(
            f"{stage.file.path}: model = {model} is not a folder: name one with --model FOLDER, or build one with "
            "`radio-vlm new`"
        )


def check_guard(pipeline: Pipeline, guard: Guard, root: str, task_keys: dict[str, str]) -> None:
    """Raise RecipeError when data that the guard asks for are missing.

    Args:
        root: where its relative paths start.
        task_keys: name of each of `guard.tasks` -> what its data folder is called, without "-test".
    """
    wanted = [(key, placed(name, root)) for key in ("data", "likelihood") for name in getattr(guard, key)]
    wanted += [("tasks", Path(root or TASK_DATA) / f"{task_keys[name]}-test") for name in guard.tasks]
    for key, path in wanted:
        if not path.exists():
            raise RecipeError(
                f"{pipeline.folder / FILE}: guard.{key}: {path} does not exist. Put the data there, correct the path "
                "or guard.data_root, or run without the guard: --guard off"
            )
