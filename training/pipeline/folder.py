"""A recipe folder: its stage files in order, and what `pipeline.yaml` says of them as a whole.

    build: {vision: C-RADIOv4-H, llm: Nemotron-Nano-9B-v2}     # makes the first stage's model, as `radio-vlm new` does
    sizes: {vision: C-RADIOv4-H, llm: ...}                     # instead: what `plan` takes a model to be; never built
    stages: [alignment.yaml, tuning.yaml]                      # default: every other *.yaml, sorted by name
    launch: {gpus_per_node: 8, nodes: 4}                       # what the recipe was made for; only shown
    guard: {data: [text-test], tolerance: 0.02}                # evaluated before the first and after every stage
"""

import difflib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from training.recipe.checks import RecipeError, choice, require

FILE = "pipeline.yaml"
KEYS = ("build", "sizes", "stages", "launch", "guard")


@dataclass
class Guard:
    """What the model must not forget, and by how much a score may fall."""

    tasks: list[str] = field(default_factory=list)
    """Tasks of `eval/run.py --tasks`."""
    data: list[str] = field(default_factory=list)
    """Dataset folders or files of questions, with or without pictures (`eval/run.py --data`)."""
    likelihood: list[str] = field(default_factory=list)
    """Dataset folders or files whose answers are not generated but weighed: the mean probability of an answer's tokens.
    It tells what a model without chat abilities knows (`eval/run.py --likelihood`)."""
    data_root: str = ""
    """Folder that relative paths start from, and that holds the <task>-test folders; default: the first stage's
    data.root, else runs/demo/data for tasks."""
    limit: int | None = 200
    """Questions asked of each dataset; null: all."""
    tolerance: float = 0.02
    """How much a score (0 to 1) may fall."""
    tolerances: dict[str, float] = field(default_factory=dict)
    """Other tolerances by the name of the task or dataset."""
    compare: str = "best"
    """What a score is held against: the `best` so far, the `previous` model's, or the `first` model's."""
    action: str = "stop"
    """`stop` the pipeline, or `flag` it and go on."""
    batch_size: int = 16
    """Questions answered at once."""

    def __post_init__(self) -> None:
        choice(self.compare, ("best", "previous", "first"), "guard.compare")
        choice(self.action, ("stop", "flag"), "guard.action")
        for name in ("tasks", "data", "likelihood"):
            value = getattr(self, name)
            right = isinstance(value, list) and all(isinstance(one, str) for one in value)
            require(right, f"guard.{name} must be a list of names, not {value!r}")
        require(bool(self.tasks or self.data or self.likelihood), "guard names no tasks, data or likelihood")
        require(
            isinstance(self.tolerances, dict), f"guard.tolerances must map names to numbers, not {self.tolerances!r}"
        )
        for name, value in {"tolerance": self.tolerance, **self.tolerances}.items():
            right = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
            require(right, f"guard: the tolerance {name} = {value!r} must lie between 0 and 1")
        for name in ("limit", "batch_size"):
            value = getattr(self, name)
            right = value is None and name == "limit" or isinstance(value, int) and value > 0
            require(right, f"guard.{name} = {value!r} must be a number above 0")

    def tolerance_of(self, name: str) -> float:
        return float(self.tolerances.get(name, self.tolerance))


@dataclass(frozen=True)
class StageFile:
    """One stage of the folder; `name` is the file's without `.yaml`."""

    name: str
    path: Path


@dataclass(frozen=True)
class Pipeline:
    """A recipe folder as read."""

    folder: Path
    stages: list[StageFile]
    build: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    launch: dict[str, Any] = field(default_factory=dict)
    guard: Guard | None = None

    def index(self, name: str) -> int:
        """Place of a stage by its name or number from 1. Raises RecipeError listing the names."""
        names = [stage.name for stage in self.stages]
        bare = name.removesuffix(".yaml")
        if bare in names:
            return names.index(bare)
        if name.isdigit() and 0 < int(name) <= len(names):
            return int(name) - 1
        raise RecipeError(f"{self.folder} has no stage {name!r}; it has {', '.join(names)}")


def read_folder(folder: str | Path) -> Pipeline:
    """Reads a recipe folder. The stage files themselves are not opened.

    Raises:
        RecipeError: no such folder, no stage, an unknown key, a stage file that is not there.
    """
    folder = Path(folder)
    require(folder.is_dir(), f"{folder} is no recipe folder; a single stage is run by training/stage1.py --config FILE")
    tree = _read_yaml(folder / FILE) if (folder / FILE).is_file() else {}
    _check_keys(tree, KEYS, folder / FILE)
    for key in ("build", "sizes", "launch", "guard"):
        require(
            tree.get(key) is None or isinstance(tree[key], dict), f"{key} in {folder / FILE} must be a mapping"
        )
    names = tree.get("stages")
    if names is None:
        names = sorted(path.name for path in folder.glob("*.yaml") if path.name != FILE)
    right = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    require(bool(right), f"{folder} has no stages: put its *.yaml files there, or list them in {FILE} as `stages:`")
    stages = [StageFile(Path(name).name.removesuffix(".yaml"), folder / name) for name in names]
    for stage in stages:
        require(stage.path.is_file(), f"stage file {stage.path}, named in {folder / FILE}, does not exist")
    twice = {stage.name for stage in stages if [s.name for s in stages].count(stage.name) > 1}
    require(not twice, f"{folder / FILE} names {', '.join(sorted(twice))} twice")
    guard = None
    if tree.get("guard"):
        _check_keys(tree["guard"], tuple(entry.name for entry in fields(Guard)), folder / FILE, "guard.")
        guard = Guard(**tree["guard"])
    parts = [tree.get(key) or {} for key in ("build", "sizes", "launch")]
    return Pipeline(folder, stages, *parts, guard)


def build_flags(build: dict[str, Any], out: str) -> list[str]:
    """The `build:` section as the flags of `radio-vlm new`: `{geometry: {mode: fixed}}` is `--geometry mode=fixed`."""
    flags = []
    for key, value in {**build, "out": out}.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, dict):
            flags += [flag, *(f"{name}={_word(one)}" for name, one in value.items())]
        elif value is True:
            flags.append(flag)
        elif value not in (None, False):
            flags += [flag, _word(value)]
    return flags


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _read_yaml(path: Path) -> dict:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    require(isinstance(tree, dict), f"{path} must hold `key: value` lines, not a {type(tree).__name__}")
    return tree


def _check_keys(tree: dict, known: tuple[str, ...], path: Path, prefix: str = "") -> None:
    for key in tree:
        close = difflib.get_close_matches(str(key), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        require(key in known, f"unknown key {prefix}{key} in {path}{hint} Known keys: {', '.join(known)}")
