"""From a YAML file and `key=value` words to a Recipe, and from the field docstrings to `--help`.

One way in: every option is a dataclass field. `train.learning_rate=3e-4` names it in full, `learning_rate=3e-4` is
enough where only one section has a field of that name (those of single modules are always named in full, those of
data.replay and distill where an older section has the same).
"""

import ast
import dataclasses
import difflib
import inspect
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from training.recipe import Recipe, RecipeError, Source
from training.recipe.source_file import read_source_file

NAMED_IN_FULL = ("modules.", "data.replay.", "distill.")  # their fields, where another section has one of that name


def load_recipe(path: str | Path | None, overrides: list[str] = ()) -> Recipe:
    """Read `path` (YAML; None for all defaults), apply `key=value` overrides, check and return the recipe.

    Raises:
        RecipeError: unknown key (lists the known ones), wrong type, or an illegal combination.
    """
    tree: dict = {}
    if path is not None:
        if not Path(path).is_file():
            raise RecipeError(f"recipe {path} does not exist")
        try:
            tree = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(tree, dict):
            raise RecipeError(f"{path} must hold `key: value` lines, not a {type(tree).__name__}")
    for word in overrides:
        _apply_override(tree, word)
    _place_source_files(tree)
    return _build(Recipe, tree, where=str(path or "overrides"))


def to_dict(recipe: Recipe) -> dict:
    """The recipe with every default filled in, ready for YAML or JSON."""
    return dataclasses.asdict(recipe)


def help_text(program: str) -> str:
    """The text of `--help`, made from the docstrings under the fields."""
    lines = [
        f"usage: deepspeed --num_accelerators N {program} [--config RECIPE.yaml] [key=value ...]",
        f"       python {program} [--config RECIPE.yaml] [key=value ...]          (one process, no DeepSpeed)",
        "",
        "Without --config the recipe is the stage's in training/recipes/tiny, which reads and writes runs/demo. What a",
        "finished stage left in output_dir is written over.",
        "",
        "Every option is a key of the recipe. Write it as section.name=value; the section may be left out where the",
        "name is unique. Lists and mappings are YAML: data.sources='[{path: runs/data, weight: 2}]'.",
    ]
    for prefix, cls in _sections(Recipe):
        title = prefix or "recipe"
        lines += ["", f"{title}: {inspect.getdoc(cls)}"]
        docs = field_docs(cls)
        for entry in dataclasses.fields(cls):
            if dataclasses.is_dataclass(_plain_type(cls, entry.name)):
                continue
            default = _default_of(entry)
            lines.append(f"  {prefix + '.' if prefix else ''}{entry.name} (default {default!r})")
            lines.append(f"      {' '.join(docs.get(entry.name, '').split())}")
    return "\n".join(lines)


def field_docs(cls: type) -> dict[str, str]:
    """The string literal under each field of a dataclass, by field name."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body[0].body
    docs = {}
    for statement, following in zip(body, body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            if isinstance(following.value, ast.Constant) and isinstance(following.value.value, str):
                docs[statement.target.id] = following.value.value
    return docs


def _default_of(entry: dataclasses.Field) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


def _plain_type(cls: type, name: str) -> Any:
    return typing.get_type_hints(cls)[name]


def _sections(cls: type, prefix: str = "") -> list[tuple[str, type]]:
    """Every (dotted prefix, dataclass) of the tree, outermost first; a list's element is shown as `data.sources[]`."""
    found = [(prefix, cls)]
    for entry in dataclasses.fields(cls):
        kind = _plain_type(cls, entry.name)
        if dataclasses.is_dataclass(kind):
            found += _sections(kind, f"{prefix}.{entry.name}" if prefix else entry.name)
        elif typing.get_origin(kind) is list and dataclasses.is_dataclass(typing.get_args(kind)[0]):
            if (prefix, entry.name) == ("data", "sources"):  # the other lists hold the same
                found.append((f"{prefix}.{entry.name}[]", typing.get_args(kind)[0]))
    return found


def known_keys() -> list[str]:
    """All dotted keys a recipe may hold."""
    keys = []
    for prefix, cls in _sections(Recipe):
        if not prefix.endswith("[]"):
            keys += [f"{prefix}.{entry.name}" if prefix else entry.name for entry in dataclasses.fields(cls)]
    return keys


def _unknown(key: str, known: list[str], where: str) -> RecipeError:
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    close = close or [leaves[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaves), n=1)]
    hint = f"; did you mean {close[0]}?" if close else ""
    return RecipeError(f"unknown key {key!r} in {where}{hint} Known keys: {', '.join(sorted(known))}")


def _apply_override(tree: dict, word: str) -> None:
    """Put one `key=value` word into the nested dict `tree`."""
    key, equals, text = word.partition("=")
    key = key.removeprefix("--").strip()
    if not equals:
        raise RecipeError(f"{word!r} is not of the form key=value (options are given as key=value; see --help)")
    known = known_keys()
    if key not in known:
        matches = [name for name in known if name.rsplit(".", 1)[-1] == key]
        matches = [name for name in matches if not name.startswith(NAMED_IN_FULL)] or matches
        if len(matches) != 1:
            if matches:
                raise RecipeError(f"{key!r} is ambiguous: write one of {', '.join(matches)}")
            raise _unknown(key, known, "the overrides")
        key = matches[0]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"cannot read the value of {word!r} as YAML: {error}") from error
    *parents, leaf = key.split(".")
    for parent in parents:
        branch = tree.get(parent)
        if branch is None:
            branch = tree[parent] = {}
        if not isinstance(branch, dict):
            raise RecipeError(f"{parent} in the recipe must be a mapping, not {branch!r}, to set {key}")
        tree = branch
    tree[leaf] = value


def _place_source_files(tree: dict) -> None:
    """Paths of files with sources start from data.root, as those of the sources themselves do."""
    data = tree.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("root"), str):
        return
    for part in (data, data.get("replay")):
        for key in ("sources", "eval_sources") if isinstance(part, dict) else ():
            if isinstance(part.get(key), str):
                part[key] = str(Path(data["root"]) / Path(part[key]).expanduser())


def _build(cls: type, tree: Any, where: str, prefix: str = "") -> Any:
    """Build the dataclass `cls` from a nested dict, checking keys and types on the way."""
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise RecipeError(f"{prefix or 'recipe'} in {where} must be a mapping, not {tree!r}")
    names = [entry.name for entry in dataclasses.fields(cls)]
    values = {}
    for key, value in tree.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if key not in names:
            known = known_keys() if not prefix.endswith("]") else [f"{prefix}.{name}" for name in names]
            raise _unknown(dotted, known, where)
        values[key] = _convert(_plain_type(cls, key), value, where, dotted)
    return cls(**values)


def _convert(kind: Any, value: Any, where: str, key: str) -> Any:
    """Coerce a YAML value to the annotated type of its field."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        options = [option for option in options if option is not type(None)]
        for option in options:
            if option is not str and typing.get_origin(option) is None and isinstance(value, option):
                return value
        return _convert(options[-1], value, where, key)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where, key)
    if origin is list:
        if value is None:
            return []
        if typing.get_args(kind)[0] is Source and isinstance(value, str):
            where, value = f"{value} ({key})", read_source_file(value, key)
        if not isinstance(value, list):
            raise RecipeError(f"{key} in {where} must be a list, not {value!r}")
        (inner,) = typing.get_args(kind)
        return [_convert(inner, item, where, f"{key}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise RecipeError(f"{key} in {where} must be a mapping, not {value!r}")
        of_key, of_value = typing.get_args(kind)
        return {_convert(of_key, k, where, key): _convert(of_value, v, where, f"{key}.{k}") for k, v in value.items()}
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 3e-4 as text
        except (TypeError, ValueError):
            pass
    elif kind is int and not isinstance(value, bool):
        try:
            if float(value) == int(float(value)):
                return int(float(value))
        except (TypeError, ValueError, OverflowError):
            pass
    elif isinstance(value, kind):
        return value
    elif kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    elif kind is str and key.endswith("zero") and value in (None, False):
        return "none"
    elif kind is str and key.endswith("reasoning") and isinstance(value, bool):
        return "on" if value else "off"  # as YAML reads these words
    raise RecipeError(f"{key} in {where} must be {getattr(kind, '__name__', kind)}, not {value!r}")
