"""What a stage's output folder says about its training: of which recipe, from which model, finished or not.

`pipeline_stage.json` is written when a stage begins and again when it is done. Only what decides the result counts:
how often is logged or saved may change between two starts.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from training.recipe import Recipe, Source

FILE = "pipeline_stage.json"
NOT_DECISIVE = ("resume", "output_dir", "watch", "train.log_steps", "train.save_steps", "train.save_total_limit")


@dataclass(frozen=True)
class Mark:
    """hash: of the recipe. id: of this training. after: id of the training of the stage before, None for the first."""

    hash: str
    id: str
    after: str | None
    complete: bool


def recipe_hash(tree: dict) -> str:
    """Hash of what decides a stage's result, from the recipe as a nested dict.

    What stands at its default is left out, so that an option that comes later does not make all stages look changed.
    """
    return hashlib.sha256(json.dumps(_chosen(tree), sort_keys=True).encode()).hexdigest()[:16]


def differences(output: Path, tree: dict, most: int = 4) -> str:
    """Which keys of the recipe in `output` differ from `tree`: `train.max_steps 10 -> 20, …`."""
    try:
        old = _chosen(json.loads((output / "recipe.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return "its recipe.json is missing"
    new = _chosen(tree)
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    defaults = _flat(asdict(Recipe()))
    old, new = {**defaults, **old}, {**defaults, **new}
    shown = [f"{key} {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys[:most]]
    return ", ".join(shown) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def read_mark(output: Path) -> Mark | None:
    """The mark of an output folder; None where there is none."""
    try:
        return Mark(**json.loads((output / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def begin(output: Path, recipe: str, after: str | None) -> Mark:
    """Marks a stage as begun anew."""
    mark = Mark(recipe, f"{time.time_ns():x}", after, complete=False)
    _write(output, mark)
    return mark


def finish(output: Path) -> None:
    """Marks a begun stage as complete."""
    mark = read_mark(output)
    _write(output, Mark(mark.hash, mark.id, mark.after, complete=True))


def _write(output: Path, mark: Mark) -> None:
    output.mkdir(parents=True, exist_ok=True)
    partial = output / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(mark)) + "\n", encoding="utf-8")
    os.replace(partial, output / FILE)


def _chosen(tree: dict) -> dict:
    """Dotted key -> value of what does not stand at its default."""
    defaults, source = _flat(asdict(Recipe())), asdict(Source(path="-"))
    flat = _flat(tree)
    if flat.get("distill.teacher") == tree.get("model"):
        flat["distill.teacher"] = None  # a stage writes down whom the default meant
    for key, value in flat.items():
        if key in ("data.sources", "data.eval_sources", "data.replay.sources"):
            flat[key] = [{k: v for k, v in one.items() if k not in source or v != source[k]} for one in value]
    return {key: value for key, value in flat.items() if key not in defaults or value != defaults[key]}


def _flat(tree: dict, prefix: str = "") -> dict:
    """Dotted key -> value, without what does not decide."""
    flat = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if dotted in NOT_DECISIVE:
            continue
        flat |= _flat(value, f"{dotted}.") if isinstance(value, dict) and value else {dotted: value}
    return flat


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
