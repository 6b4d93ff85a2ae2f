"""What `radio-vlm check-data` was asked to look at: datasets, stage files and recipe folders -> jobs and a model.

Not a command itself.
"""

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm.errors import RadioVLMError

YAML = (".yaml", ".yml")
HUB = "hf://"
SHARDS = re.compile(r"\{\d+\.\.\d+\}")  # of tar files, which together are no file
OPTION = re.compile(r"[a-z_]+(\.[a-z_]+)*=")


@dataclass
class Plan:
    """`jobs`: see training.data.check; `notes`: what is checked and how, in words; `title`: for the page."""

    jobs: list = field(default_factory=list)
    model: str | None = None
    looks: bool = False
    share_limit: float = 0.02
    notes: list[str] = field(default_factory=list)
    title: str = ""


def read_plan(args: argparse.Namespace) -> Plan:
    """The plan of a command line. Raises RadioVLMError for what cannot be meant."""
    from training.data.check import Job

    words = [word for word in args.words if OPTION.match(word) and not _exists(word)]
    paths = [word for word in args.words if word not in words]
    options = {"media_root": args.media_root, "format": args.format, "split": args.split, "limit": args.limit}
    options = {key: value for key, value in options.items() if value is not None}
    stages = [file for path in [*paths, *args.recipe] for file in stage_files(path)]
    plan = Plan(title=", ".join([*map(str, paths), *map(str, args.recipe)]))
    for path in paths:
        if not stage_files(path):
            plan.jobs.append(Job({"path": _data(path), **options}, max_length=args.max_length))
    if words and not stages:
        raise RadioVLMError(f"{words[0]!r} is an option of a recipe: give a stage file or a recipe folder with it")
    _add_stages(plan, stages, words, options, args)
    for path in args.against:
        plan.jobs.append(Job({"path": _data(path), **options}, "eval", max_length=args.max_length))
    if not plan.jobs:
        raise RadioVLMError("nothing to check: give a dataset, a stage file (.yaml) or a recipe folder")
    has_heldout = any(job.role == "eval" for job in plan.jobs)
    plan.looks = has_heldout if args.duplicates is None else args.duplicates
    _tell(plan, args, has_heldout)
    return plan


def stage_files(path: str | Path) -> list[Path]:
    """The stage files a word names: itself, or those of a recipe folder in their order; else none.

    A folder is one of recipes when it has a pipeline.yaml, or a YAML file that names data sources.
    """
    from training.pipeline.folder import FILE, read_folder
    from training.recipe import RecipeError

    path = Path(path)
    if path.suffix in YAML and path.name != FILE:
        return [path]
    folder = path.parent if path.name == FILE else path
    try:
        if (folder / FILE).is_file():
            return [stage.path for stage in read_folder(folder).stages]
    except RecipeError as error:
        raise RadioVLMError(str(error)) from error
    if path.name == FILE or not path.is_dir():
        return []
    return [file for file in sorted(path.iterdir()) if file.suffix in YAML and _is_stage(file)]


def _is_stage(file: Path) -> bool:
    """Whether a YAML file names data sources."""
    import yaml

    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    data = tree.get("data") if isinstance(tree, dict) else None
    return isinstance(data, dict) and "sources" in data


def _add_stages(plan: Plan, files: list[Path], words: list[str], options: dict, args: argparse.Namespace) -> None:
    from training.data.check import Job
    from training.data.sources import under_root
    from training.recipe import RecipeError
    from training.recipe.loading import load_recipe

    recipes = []
    for file in files:
        try:
            recipes.append((file, load_recipe(file, words)))
        except RecipeError as error:
            raise RadioVLMError(str(error)) from error
    plan.model, missing = args.model, []
    for file, recipe in recipes:
        if args.model is None and recipe.model:
            if any((Path(recipe.model) / name).is_file() for name in ("config.json", "adapter_config.json")):
                plan.model = plan.model or recipe.model
            else:
                missing.append(f"{file.name} starts from {recipe.model}, which is not there yet")
    if plan.model is None:
        plan.notes += missing[:1]
    if recipes:  # the strictest of the stages
        plan.share_limit = min(recipe.data.bad_share_limit for _, recipe in recipes)
    seen = []
    for file, recipe in recipes:
        data = recipe.data
        max_length = args.max_length or (data.max_length if plan.model else None)
        pruning: dict[str, Any] = {} if data.video_pruning is None else {"pruning_rate": 0.0}  # max_length counts all
        sources = [(one, "train", one.limit) for one in data.all_sources()]
        sources += [(one, "eval", one.limit or data.eval_limit) for one in data.eval_sources]
        for one, role, limit in sources:
            spec = {key: value for key, value in one.as_dict().items() if key not in ("weight", "repeats", "cap")}
            spec = under_root(spec, data.root) | ({"limit": limit} if limit else {}) | options
            job = Job(spec, role, file.stem if len(recipes) > 1 else "", max_length, pruning)
            if (known := (spec, role, max_length)) not in seen:  # several stages may read the same
                seen.append(known)
                plan.jobs.append(job)


def _tell(plan: Plan, args: argparse.Namespace, has_heldout: bool) -> None:
    """What is checked and how."""
    if plan.model is None:
        plan.model = args.model
    how = "opened and their ends looked for" if args.decode == "headers" else "decoded"
    more = " (--decode full decodes them)" if args.decode == "headers" else ""
    plan.notes.append(f"media are {how}{more}")
    streamed = [job for job in plan.jobs if isinstance(job.spec, dict) and job.spec.get("streaming")]
    if streamed:
        plan.notes.append(f"streamed sources ({len(streamed)}): their first records only (--limit N says how many)")
    if plan.model is None:
        plan.notes.append("no model: schema and media only (--model adds lengths and labels)")
    else:
        plan.notes.append(f"lengths and labels as the processor of {plan.model} makes them")
    if plan.looks:
        off = "; --no-duplicates leaves it out" if args.duplicates is None else ""
        plan.notes.append(f"pictures are compared by their looks{off}")
    elif has_heldout:
        plan.notes.append("held-out data are compared with training by file and words, not by looks")


def _data(path: str) -> str:
    if not _exists(path):
        raise RadioVLMError(f"no such file or folder: {path}")
    return path


def _exists(path: str) -> bool:
    return path.startswith(HUB) or bool(SHARDS.search(path)) or Path(path).expanduser().exists()
