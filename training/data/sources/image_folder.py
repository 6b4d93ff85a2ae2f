"""A folder of pictures (videos, PDF files, NIfTI volumes) with words beside them: `a.jpg` with `a.txt` (a caption) or
`a.json` (a record of any shape), in any sub-folder; or with one `metadata.csv` whose column `file_name` names the
picture, as Hugging Face image folders have it. (`metadata.jsonl` is read by the jsonl source.)
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

from training.data.media_names import has_words, kind_of, lists_media, stem_of, with_media
from training.data.sample import Sample, resolve_media
from training.data.sources.json_records import FOLDER_FILES
from training.data.sources.registry import DataError, Source, register_source
from vlm.errors import SampleError

METADATA = "metadata.csv"
SIDE_CARS = (".json", ".txt")
DATA_SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".arrow", ".tar", ".csv", ".tsv")
LOOKED_AT = 2_000  # files, to decide whether a folder is one of pictures


@register_source("image_folder")
class ImageFolderSource(Source):
    """Pictures in the order of their paths, or the rows of metadata.csv."""

    def __init__(self, path: Path | str, **options):
        super().__init__(path, **options)
        self.folder = Path(path)
        self.base_dir = self.media_root or self.folder
        self.rows: list[tuple[int, dict[str, str]]] | None = None
        self.files: list[str] = []
        if (self.folder / METADATA).is_file():
            self.rows = _csv_rows(self.folder / METADATA)
        else:
            media = sorted(_media_below(self.folder))
            self.files = [name for name in media if _side_car(self.folder / name)]
            if not self.files:
                raise DataError(
                    f"{path} holds {len(media)} pictures but no words to learn: put a caption a.txt or a record a.json "
                    "beside each a.jpg, or a metadata.jsonl or metadata.csv with file_name and text (or question and "
                    "answer) into the folder. Names of folders are not taken for classes: write them as answers"
                )

    @classmethod
    def claims(cls, path: Path | str) -> bool:
        path = Path(path)
        if not path.is_dir() or any((path / name).is_file() for name in FOLDER_FILES):
            return False
        if (path / METADATA).is_file():
            return True
        names = [entry.name for entry in os.scandir(path) if entry.is_file()]
        if any(name.endswith(DATA_SUFFIXES) for name in names):
            return False
        stems = {stem_of(name) for name in names if kind_of(name)}
        if any(name.endswith(".json") and name.removesuffix(".json") not in stems for name in names):
            return False  # a table of records that other sources read
        return any(True for _ in _media_below(path, LOOKED_AT))

    def __len__(self) -> int:
        return len(self.files) if self.rows is None else len(self.rows)

    def where(self, index: int) -> str:
        if self.rows is not None:
            return f"{self.folder / METADATA}:{self.rows[index][0]}"
        return str(_side_car(self.folder / self.files[index]) or self.folder / self.files[index])

    def __getitem__(self, index: int) -> Sample:
        index = self._checked(index)
        origin = self.where(index)
        if self.rows is not None:
            line, row = self.rows[index]
            return self.parse(self.renamed(row), f"{METADATA}:{line}", origin, self.base_dir)
        name = self.files[index]
        try:
            record = self._beside(name)
        except SampleError as error:
            raise SampleError(error.message, name, origin, error.reason) from None
        except (OSError, ValueError, RecursionError) as error:  # decoding errors are ValueErrors
            raise SampleError(f"{type(error).__name__}: {error}", name, origin, "bad_json") from None
        if isinstance(record, dict):
            record = self.renamed(record)
            if not lists_media(record):
                record = with_media(record, [(kind_of(name), os.path.relpath(self.folder / name, self.base_dir))])
        return self.parse(record, name, origin, self.base_dir)

    def _beside(self, name: str) -> Any:
        """The record of a picture: its .json, with the .txt as caption where the .json has no words."""
        stem, record = stem_of(name), {}
        if (self.folder / f"{stem}.json").is_file():
            record = json.loads(self._read(f"{stem}.json"))
        if isinstance(record, dict) and not has_words(self.renamed(record)) and (self.folder / f"{stem}.txt").is_file():
            record = {**record, "text": self._read(f"{stem}.txt").strip()}
        return record

    def _read(self, name: str) -> str:
        """The text of a side file; a link may not lead out of the folder."""
        return Path(resolve_media(name, self.folder)).read_text(encoding="utf-8-sig")


def _media_below(folder: Path, most: int | None = None):
    """Relative paths of the media in a folder and its sub-folders (links to folders are not followed); gives up after
    `most` files.
    """
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            seen += 1
            if most is not None and seen > most:
                return
            if kind_of(name) and not name.startswith("."):
                yield os.path.relpath(os.path.join(place, name), folder)


def _side_car(picture: Path) -> Path | None:
    stem = stem_of(picture.name)
    return next((path for suffix in SIDE_CARS if (path := picture.with_name(stem + suffix)).is_file()), None)


def _csv_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, row without empty cells) of a CSV file. Raises DataError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [
                (reader.line_num, {key: cell for key, cell in row.items() if key and isinstance(cell, str) and cell})
                for row in reader
            ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows
