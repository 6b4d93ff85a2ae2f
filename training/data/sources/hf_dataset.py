"""Hugging Face datasets on disk: a `save_to_disk` folder, a parquet file or a folder of parquet files.

Rows may be shaped in any way that training.data.records knows; pictures are decoded only when a sample is asked for, so
that one corrupt picture is one bad sample.
"""

import io
from pathlib import Path
from typing import Any

from training.data.records import parse_record
from training.data.sample import Sample
from training.data.sources.registry import DataError, Source, register_source
from vlm.errors import SampleError


def parquet_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    return [path] if path.suffix == ".parquet" else []


@register_source("hf_dataset")
class HfDatasetSource(Source):
    """`split` picks one of several; needed only when there are several."""

    def __init__(self, path: Path, **options):
        super().__init__(path, **options)
        self.base_dir = self.media_root or (path if path.is_dir() else path.parent)
        self.data = self._open()
        if len(self.data) == 0:
            raise DataError(f"{path} holds no rows")

    @classmethod
    def claims(cls, path: Path) -> bool:
        if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
            return True
        return bool(parquet_files(path))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        index = self._checked(index)
        origin, default_id = self.where(index), f"{self.path.stem}:{index}"
        row = _undictionary(self.data[index])
        try:
            row = {key: self._media(value) for key, value in row.items()}
        except SampleError as error:
            raise SampleError(error.message, default_id, origin, error.reason) from None
        return parse_record(row, default_id=default_id, source=self.name, base_dir=self.base_dir, origin=origin)

    def _open(self):
        try:
            import datasets
        except ImportError:
            raise DataError('reading Hugging Face datasets needs `datasets`: pip install "radio-vlm[train]"') from None
        files = parquet_files(self.path)
        if files and self.split:
            files = [file for file in files if file.name.startswith(self.split)]
            if not files:
                raise DataError(f"{self.path} holds no parquet file whose name begins with the split {self.split!r}")
        try:
            data = (
                datasets.Dataset.from_parquet([str(file) for file in files])
                if files
                else datasets.load_from_disk(str(self.path))
            )
        except Exception as error:  # pyarrow and datasets raise a dozen unrelated types for a broken folder
            raise DataError(f"{self.path} cannot be read as a Hugging Face dataset: {error}") from error
        if isinstance(data, datasets.DatasetDict):
            split = self.split or (next(iter(data)) if len(data) == 1 else None)
            if split not in data:
                raise DataError(
                    f"{self.path} has the splits {', '.join(data)}: choose one with `split:`, got {self.split!r}"
                )
            data = data[split]
        return data.cast(_without_decoding(data.features))

    def _media(self, value: Any) -> Any:
        """Media as Arrow keeps them ({"bytes", "path"}) -> PIL images, the bytes of a PDF, the path without bytes."""
        if isinstance(value, list):
            return [self._media(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {"bytes", "path"}:
            if value["bytes"] is None:
                return value["path"]
            from vlm.media import load_image
            from vlm.media.pdf import is_pdf

            if is_pdf(value["bytes"]):
                return value["bytes"]
            return load_image(io.BytesIO(value["bytes"]))
        return {key: self._media(item) for key, item in value.items()}


def _without_decoding(features: Any) -> Any:
    """The same features with every Image and Pdf left as bytes, at any depth."""
    import datasets

    for kind in (datasets.Image, getattr(datasets, "Pdf", datasets.Image)):
        if isinstance(features, kind):
            return kind(decode=False)
    if isinstance(features, dict):
        return type(features)({key: _without_decoding(value) for key, value in features.items()})
    if isinstance(features, (datasets.List, datasets.LargeList)):
        return type(features)(_without_decoding(features.feature))
    if isinstance(features, list):
        return [_without_decoding(features[0])]
    return features


def _undictionary(row: dict[str, Any]) -> dict[str, Any]:
    """`Sequence` of structs come back as a struct of lists; turn conversations back into a list of turns."""
    for key in ("messages", "conversations", "texts"):
        value = row.get(key)
        if isinstance(value, dict):
            row[key] = [dict(zip(value, items)) for items in zip(*value.values())]
    return row
