"""JSON text files: one record a line (JSONL), or one list of records (LLaVA JSON).

Only where each record begins and ends is kept in memory (a 600 MB LLaVA file costs some MB); records are read and
parsed when asked for. So a broken line spoils one sample, not the run, and is reported as file:line.
"""

import json
import os
import re
from array import array
from pathlib import Path

from training.data.sample import Sample
from training.data.sources.registry import DataError, Source, register_source
from vlm.errors import SampleError

RECORDS = "records.jsonl"  # the file of our own dataset folders
FOLDER_FILES = (RECORDS, "metadata.jsonl")  # the latter is the Hugging Face image folder's
SPACE = re.compile(r"[ \t\r\n]*")


class JsonSource(Source):
    """Records as byte spans of one file; subclasses find the spans."""

    def __init__(self, path: Path, **options):
        super().__init__(path, **options)
        self.file = self.data_file(path)
        self.base_dir = self.media_root or self.file.parent
        self.starts, self.ends, self.lines = array("Q"), array("Q"), array("Q")
        self._fd: int | None = None
        self._index()
        if not self.starts:
            raise DataError(f"{self.file} holds no records")

    @classmethod
    def data_file(cls, path: Path) -> Path:
        return path

    def _index(self) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, index: int) -> str:
        return f"{self.file}:{self._place(index)}"

    def _place(self, index: int) -> str:
        """The line, and where several records share it, the number of the record from 0."""
        line = self.lines[index]
        shared = line in (self.lines[index - 1] if index else None, *self.lines[index + 1 : index + 2])
        return f"{line}[{index}]" if shared else str(line)

    def __getitem__(self, index: int) -> Sample:
        index = self._checked(index)
        origin = self.where(index)
        default_id = f"{self.file.stem}:{self._place(index)}"
        try:
            record = json.loads(self._read(index))
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise SampleError(f"this is not JSON: {error}", default_id, origin, "bad_json") from None
        return self.parse(self.renamed(record), default_id, origin, self.base_dir)

    def _read(self, index: int) -> str:
        if self._fd is None:  # opened late and not pickled: worker processes open their own
            self._fd = os.open(self.file, os.O_RDONLY)
        start, end = self.starts[index], self.ends[index]
        return os.pread(self._fd, end - start, start).decode("utf-8")

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_fd": None}

    def __del__(self):
        if getattr(self, "_fd", None) is not None:
            os.close(self._fd)


def first_character(path: Path) -> str:
    """The first character that is no space, "" for an empty or unreadable file."""
    try:
        with path.open("rb") as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1].decode("latin-1")
    except OSError:
        return ""


@register_source("jsonl")
class JsonlSource(JsonSource):
    """One JSON object a line; or a folder that holds `records.jsonl`, `metadata.jsonl` or a single .jsonl file."""

    @classmethod
    def claims(cls, path: Path | str) -> bool:
        file = cls.data_file(path)
        if not file.is_file() or first_character(file) == "[":
            return False
        return file.suffix in (".jsonl", ".ndjson") or (file.suffix == ".json" and first_character(file) == "{")

    @classmethod
    def data_file(cls, path: Path | str) -> Path:
        path = Path(path)
        if not path.is_dir():
            return path
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        files = sorted(path.glob("*.jsonl"))
        return files[0] if len(files) == 1 else path / RECORDS

    def _index(self) -> None:
        offset = 0
        with self.file.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    skip = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
                    self.starts.append(offset + skip)
                    self.ends.append(offset + len(line))
                    self.lines.append(number)
                offset += len(line)


@register_source("llava_json")
class LlavaJsonSource(JsonSource):
    """One JSON list of records, as LLaVA and most of its descendants keep their data; or a folder with a single such
    file.
    """

    @classmethod
    def claims(cls, path: Path | str) -> bool:
        file = cls.data_file(path)
        return file.is_file() and file.suffix in (".json", ".jsonl") and first_character(file) == "["

    @classmethod
    def data_file(cls, path: Path | str) -> Path:
        path = Path(path)
        if not path.is_dir():
            return path
        files = sorted(file for file in path.glob("*.json") if first_character(file) == "[")
        return files[0] if len(files) == 1 and not (path / RECORDS).exists() else path / "data.json"

    def _index(self) -> None:
        try:
            text = self.file.read_bytes().decode("utf-8")  # line ends as they are: byte positions count
        except UnicodeDecodeError as error:
            raise DataError(f"{self.file} is not UTF-8 text: {error}") from None
        decoder = json.JSONDecoder()
        position = 1 + text.index("[")
        counted, line, offset = 0, 1, 0  # characters seen so far, and where they end in lines and bytes
        expected = "a record"
        while True:
            position = SPACE.match(text, position).end()
            if text[position : position + 1] == "]" and (expected == "," or not self.starts):
                break
            if expected == ",":
                if text[position : position + 1] != ",":
                    self._fail(text, position, "expected ',' or ']' after a record")
                position, expected = position + 1, "a record"
                continue
            try:
                _, end = decoder.raw_decode(text, position)
            except (ValueError, RecursionError) as error:
                self._fail(text, getattr(error, "pos", position), str(error).split(": line")[0])
            for stop, spans in ((position, self.starts), (end, self.ends)):
                part = text[counted:stop]
                offset += len(part) if part.isascii() else len(part.encode("utf-8"))
                line += part.count("\n")
                counted = stop
                spans.append(offset)
                if spans is self.starts:
                    self.lines.append(line)
            position, expected = end, ","
        rest = text[position + 1 :].strip()
        if rest:
            self._fail(text, position + 1, f"text after the end of the list: {rest[:40]!r}")

    def _fail(self, text: str, position: int, problem: str) -> None:
        line = text.count("\n", 0, position) + 1
        raise DataError(f"{self.file}:{line}: this is not JSON: {problem} (after {len(self.ends)} good records)")
