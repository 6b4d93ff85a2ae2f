"""Hugging Face datasets on disk: a `save_to_disk` folder, parquet or Arrow files, or a clone of a repository of the hub
(folders of parquet files, `subset` picks one).

Rows may be shaped in any way that training.data.records knows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data import hf_loading  # which imports this package: its names are looked up when they are needed
from training.data.sample import Sample
from training.data.sources.registry import HUB, DataError, Source, register_source
from vlm.errors import SampleError

BLOCK = 512  # rows


@register_source("hf_dataset")
class HfDatasetSource(Source):
    """`split` picks one of several; needed only when there are several. `opened=False`: rows come from a stream."""

    def __init__(self, path: Path | str, opened: bool = True, **options):
        super().__init__(path, **options)
        self.base_dir = self._base_dir()
        if not opened:
            return
        self.data = hf_loading.load_whole(path, self.subset, self.split)
        if len(self.data) == 0:
            raise DataError(f"{path} holds no rows")

    @classmethod
    def claims(cls, path: Path | str) -> bool:
        path = Path(path)
        if not path.is_dir():
            return path.is_file() and path.suffix in (".parquet", ".arrow")
        return hf_loading.is_saved(path) or bool(hf_loading.parquet_files(path)) or any(path.glob("*/*.parquet"))

    def _base_dir(self) -> Path | None:
        path = Path(self.path)
        return self.media_root or (path if path.is_dir() else path.parent)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        index = self._checked(index)
        return self._sample(self.data[index].to_pylist()[0], index)

    def outlines(self, count: int | None = None) -> Iterator[Sample | None]:
        """Rows a block at a time, without their pictures: reading those would be reading the whole dataset."""
        count = len(self) if count is None else count
        for start in range(0, count, BLOCK):
            rows = hf_loading.without_bytes(self.data[start : min(start + BLOCK, count)])
            for index, row in enumerate(rows, start):
                try:
                    yield self._sample(row, index)
                except SampleError:
                    yield None

    def _sample(self, row: dict[str, Any], index: int) -> Sample:
        row = self.renamed(hf_loading.undictionary(row))
        return self.parse(row, f"{Path(self.path).stem}:{index}", self.where(index), self.base_dir)


@register_source("hf_hub")
class HfHubSource(HfDatasetSource):
    """`hf://ORG/NAME` or `hf://ORG/NAME@REVISION`: downloaded once into the cache of `datasets`."""

    @classmethod
    def claims(cls, path: Path | str) -> bool:
        return str(path).startswith(HUB)

    @staticmethod
    def default_name(path: Path | str) -> str:
        return str(path).removeprefix(HUB).partition("@")[0]

    def _base_dir(self) -> Path | None:
        return self.media_root
