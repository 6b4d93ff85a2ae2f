"""Opening Hugging Face datasets, on disk or on the hub, whole or as a stream; what is wrong is said with what there is.

Media are never decoded here: rows keep them as {"bytes", "path"}, so a corrupt picture is one bad sample, found when it
is encoded.
"""

from itertools import islice
from pathlib import Path
from typing import Any

from training.data.sources.registry import HUB, DataError


def parquet_files(path: Path | str) -> list[Path]:
    """The parquet files of a file or folder name (also of its `data` folder), in order."""
    path = Path(path)
    if path.is_dir():
        return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    return [path] if path.suffix == ".parquet" and path.is_file() else []


def is_saved(path: Path | str) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    path = Path(path)
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def load_whole(path: Path | str, subset: str | None, split: str | None) -> Any:
    """A map-style dataset; `data[i]` is an Arrow table of one row, media undecoded. Raises DataError."""
    datasets = _datasets()
    try:
        if is_saved(path):
            data = _pick(datasets.load_from_disk(str(path)), path, split)
        elif Path(path).suffix == ".arrow":
            data = datasets.Dataset.from_file(str(path))
        elif files := _chosen_files(path, subset, split):
            data = datasets.Dataset.from_parquet(files)
        else:
            name, revision = _name(path)
            split = split or _only_split(path, subset)
            data = datasets.load_dataset(name, subset, split=split, revision=revision)
    except DataError:
        raise
    except Exception as error:  # pyarrow, datasets and the hub raise dozens of unrelated types
        raise DataError(_explained(path, subset, split, error)) from error
    return data.with_format("arrow")  # rows as they are stored: `cast` would copy the whole table to disk


def load_stream(path: Path | str, subset: str | None, split: str | None) -> Any:
    """An IterableDataset with undecoded media; where its columns are not known beforehand (CSV files) nothing would be
    decoded. Raises DataError."""
    datasets = _datasets()
    try:
        if files := _chosen_files(path, subset, split):
            data = datasets.load_dataset("parquet", data_files={"train": files}, split="train", streaming=True)
        else:
            name, revision = _name(path)
            split = split or _only_split(path, subset)
            data = datasets.load_dataset(name, subset, split=split, revision=revision, streaming=True)
    except DataError:
        raise
    except Exception as error:
        raise DataError(_explained(path, subset, split, error)) from error
    return data if data.features is None else data.decode(False)


def undictionary(row: dict[str, Any]) -> dict[str, Any]:
    """`Sequence` of structs come back as a struct of lists; turn conversations back into a list of turns."""
    for key in ("messages", "conversations", "texts"):
        value = row.get(key)
        if isinstance(value, dict):
            row[key] = [dict(zip(value, items)) for items in zip(*value.values())]
    return row


def without_bytes(table: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table as `to_pylist` gives them, but with empty bytes for all bytes, which are not read."""
    columns = [[value for chunk in column.chunks for value in _values(chunk)] for column in table.columns]
    return [dict(zip(table.column_names, values)) for values in zip(*columns)]


def _values(array: Any) -> list[Any]:
    import pyarrow.types as kinds

    kind = array.type
    if kinds.is_binary(kind) or kinds.is_large_binary(kind):
        return [b"" if valid else None for valid in array.is_valid().to_pylist()]
    if kinds.is_struct(kind) and kind.num_fields:
        fields = [_values(array.field(place)) for place in range(kind.num_fields)]
        names = [kind.field(place).name for place in range(kind.num_fields)]
        valid = array.is_valid().to_pylist()
        return [dict(zip(names, values)) if there else None for there, values in zip(valid, zip(*fields))]
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        items = iter(_values(array.flatten()))  # of this slice, without what lies below a null
        counts = array.value_lengths().to_pylist()
        return [None if count is None else list(islice(items, count)) for count in counts]
    return array.to_pylist()


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError('reading Hugging Face datasets needs `datasets`: pip install "radio-vlm[train]"') from None
    return datasets


def _name(path: Path | str) -> tuple[str, str | None]:
    """`hf://ORG/NAME@REVISION` -> (ORG/NAME, REVISION or None); a folder -> (its path, None)."""
    if not str(path).startswith(HUB):
        return str(path), None
    name, _, revision = str(path).removeprefix(HUB).strip("/").partition("@")
    return name, revision or None


def _chosen_files(path: Path | str, subset: str | None, split: str | None) -> list[str]:
    """The parquet files of a plain folder that belong to `split`; [] where `datasets` must look for itself."""
    files = [] if str(path).startswith(HUB) or subset else parquet_files(path)
    if files and split:
        chosen = [file for file in files if file.name.startswith(split)]
        if not chosen:
            names = ", ".join(sorted({file.name.split("-")[0] for file in files})[:8])
            message = f"{path} holds no parquet file whose name begins with the split {split!r}; there are {names}"
            raise DataError(message)
        files = chosen
    return [str(file) for file in files]


def _pick(data: Any, path: Path | str, split: str | None) -> Any:
    """The split of a saved DatasetDict; a saved Dataset as it is."""
    if not isinstance(data, dict):
        return data
    split = split or (next(iter(data)) if len(data) == 1 else None)
    if split not in data:
        raise DataError(f"{path} has the splits {', '.join(data)}: choose one with `split:`, got {split!r}")
    return data[split]


def _only_split(path: Path | str, subset: str | None) -> str:
    """The split of a dataset that has one. Raises DataError naming the splits where there are several."""
    name, revision = _name(path)
    splits = _datasets().get_dataset_split_names(name, subset, revision=revision)
    if len(splits) != 1:
        raise DataError(f"{path} has the splits {', '.join(map(str, splits))}: choose one with `split:`")
    return str(splits[0])


def _explained(path: Path | str, subset: str | None, split: str | None, error: Exception) -> str:
    """One message: what failed, and which subsets and splits there are or why the hub does not answer."""
    datasets = _datasets()
    problem = f"{path} cannot be read as a Hugging Face dataset: {error}"
    hub = str(path).startswith(HUB)
    if not hub and not (Path(path).is_dir() and not is_saved(path)):
        return problem
    try:
        name, revision = _name(path)
        subsets = datasets.get_dataset_config_names(name, revision=revision)
        if (subset is None and len(subsets) > 1) or (subset is not None and subset not in subsets):
            return f"{problem}\nit has the subsets {', '.join(subsets)}: choose one with `subset:`, got {subset!r}"
        splits = datasets.get_dataset_split_names(name, subset, revision=revision)
        if split not in splits:
            return f"{problem}\nit has the splits {', '.join(splits)}: choose one with `split:`, got {split!r}"
    except Exception as second:  # noqa: BLE001 - only more help; the first error says what is wrong
        if hub and datasets.config.HF_HUB_OFFLINE:
            return f"{problem}\nHF_HUB_OFFLINE is set: unset it, or download the dataset and give its folder as path"
        if hub and isinstance(second, (ConnectionError, TimeoutError)):
            return f"{problem}\nthe hub cannot be reached: download the dataset elsewhere and give its folder as path"
    return problem
