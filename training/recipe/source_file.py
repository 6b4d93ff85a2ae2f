"""A data mixture in a file of its own: a YAML list of sources, as `radio-vlm make-expert-data` writes one."""

from pathlib import Path

import yaml

from training.recipe.checks import RecipeError, require

HUB = "hf://"


def read_source_file(path: str, key: str) -> list:
    """The entries of a YAML file, their relative paths made absolute: they start from the folder of the file.

    Args:
        key: the option that names the file, for messages.

    Raises:
        RecipeError: there is no such file, or it holds no list of {path, weight, ...}.
    """
    file = Path(path).expanduser()
    require(file.is_file(), f"{key} = {path}: there is no such file (a list of sources is written [{{path: FOLDER}}])")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{key} = {path} is not valid YAML: {error}") from error
    fine = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    require(fine and bool(entries), f"{key} = {path} must hold a list of `- path: FOLDER` entries")
    return [_placed(entry, file.absolute().parent) for entry in entries]


def _placed(entry: dict, folder: Path) -> dict:
    placed = dict(entry)
    for key in ("path", "media_root"):
        if isinstance(entry.get(key), str) and entry[key] and not entry[key].startswith(HUB):
            placed[key] = str(folder / Path(entry[key]).expanduser())
    return placed
