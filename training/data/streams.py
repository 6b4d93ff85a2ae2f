"""Sources read from front to back: a rank's share of their records, from any place that was noted earlier.

A Hugging Face dataset is streamed by `datasets` (from the hub, or from parquet files); every other source is a sequence
anyway and is read in its own order. A record that cannot be read is handed on as a sample with a `problem`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.hf_loading import is_saved, load_stream, undictionary
from training.data.sample import Sample
from training.data.sources.hf_dataset import HfDatasetSource
from training.data.sources.registry import DataError, Source, source_class
from vlm.errors import SampleError


class Stream(ABC):
    """One pass over the records of `source` that belong to one rank.

    size: what is known of how much there is, in words: a position is good for data of this size alone.
    """

    size: str

    def __init__(self, source: Source, rank: int, world_size: int, limit: int | None):
        self.source, self.rank, self.world_size, self.limit = source, rank, world_size, limit

    @abstractmethod
    def read(self, position: dict | None, count: int) -> tuple[list[Sample], dict, bool]:
        """Up to `count` samples from `position` on (None: the start of the pass), the position behind them (JSON), and
        whether the pass ended. The ranks' shares are disjoint and together complete.
        """


def open_stream(spec: dict[str, Any], rank: int = 0, world_size: int = 1) -> Stream:
    """A source spec (see `open_source`) -> its stream for one rank. Raises DataError."""
    cls, path, reading = source_class(spec)
    limit = spec.get("limit")
    if issubclass(cls, HfDatasetSource) and not is_saved(path) and Path(path).suffix != ".arrow":
        return HfStream(cls(path, opened=False, **reading), rank, world_size, limit)
    return SequenceStream(cls(path, **reading), rank, world_size, limit)


def readable(source: Source, index: int) -> Sample:
    """`source[index]`; a record that cannot be read becomes a sample with a `problem`."""
    try:
        return source[index]
    except SampleError as error:
        return unreadable(error, source)


def unreadable(error: SampleError, source: Source) -> Sample:
    """The sample that stands for a record that could not be read."""
    return Sample(error.sample_id or "", source.name, [], origin=error.path or str(source.path), problem=error)


class SequenceStream(Stream):
    """A source of known length in its own order: rank r of W takes rows r, r + W, ..."""

    def __init__(self, source: Source, rank: int, world_size: int, limit: int | None):
        super().__init__(source, rank, world_size, limit)
        self.records = len(source) if limit is None else min(limit, len(source))
        self.size = f"{self.records} records"

    def read(self, position: dict | None, count: int) -> tuple[list[Sample], dict, bool]:
        first = 0 if position is None else position["record"]
        rows = range(self.rank, self.records, self.world_size)
        samples = [readable(self.source, row) for row in rows[first : first + count]]
        return samples, {"record": first + len(samples)}, first + count >= len(rows)


class HfStream(Stream):
    """A dataset of `datasets` in streaming mode: whole files (shards) a rank where their number divides evenly and
    there is no limit, else every W-th record. Its own state says where to go on, without reading the files before.
    """

    def __init__(self, source: HfDatasetSource, rank: int, world_size: int, limit: int | None):
        super().__init__(source, rank, world_size, limit)
        self.data = load_stream(source.path, source.subset, source.split)
        self.size = f"{self.data.num_shards} files"
        self.by_shard = world_size > 1 and limit is None and self.data.num_shards % world_size == 0
        if self.by_shard:
            from datasets.distributed import split_dataset_by_node

            self.data = split_dataset_by_node(self.data, rank, world_size)
        self._fresh = self.data.state_dict()
        self._rows: Iterator[dict] = iter(())
        self._position: dict | None = None  # where `_rows` stands

    def read(self, position: dict | None, count: int) -> tuple[list[Sample], dict, bool]:
        if position is None or position != self._position:
            self.data.load_state_dict(self._fresh if position is None else position["state"])
            self._rows = iter(self.data)
        self._position = None  # should reading fail, `_rows` is at its end, which must not pass for the end of the data
        record = 0 if position is None else position["record"]  # of the pass, counted over what this iterator yields
        samples, ended = [], False
        while len(samples) < count and not ended:
            row = next_row(self._rows, self.source, record) if self.limit is None or record < self.limit else None
            if row is None:
                ended = True
            else:
                if self.by_shard or record % self.world_size == self.rank:
                    samples.append(self._sample(row, record))
                record += 1
        self._position = {"record": record, "state": self.data.state_dict()}
        return samples, self._position, ended

    def _sample(self, row: dict, record: int) -> Sample:
        share = f"share {self.rank} of {self.world_size}, " if self.by_shard else ""
        origin = f"{self.source.path}[{share}record {record}]"
        default_id = f"{Path(self.source.path).stem}:{f'{self.rank}.' if self.by_shard else ''}{record}"
        try:
            record = self.source.renamed(undictionary(row))
            return self.source.parse(record, default_id, origin, self.source.base_dir)
        except SampleError as error:
            return unreadable(error, self.source)


def next_row(rows: Iterator[dict], source: Source, record: int) -> dict | None:
    """The next row, None at the end. Raises DataError when the data cannot be read any further."""
    try:
        return next(rows, None)
    except Exception as error:  # pyarrow, datasets and the network raise dozens of unrelated types
        message = f"{source.path}: reading the stream failed behind record {record}: {type(error).__name__}: {error}"
        raise DataError(f"{message}\ntraining can be resumed from its last checkpoint") from error


class StreamHead(Source):
    """The first `limit` records of a stream, held in memory: what held-out measuring and checks read of it."""

    format = "stream"

    def __init__(self, spec: dict[str, Any]):
        limit = spec.get("limit")
        if limit is None:
            raise DataError(
                f"{spec['path']} is streamed, so its size is unknown: set `limit:` to read its first records here, "
                "or leave `streaming:` out"
            )
        stream = open_stream(spec)
        super().__init__(stream.source.path, name=stream.source.name)
        self.samples, _, _ = stream.read(None, int(limit))
        if not self.samples:
            raise DataError(f"{self.path} holds no records")

    @classmethod
    def claims(cls, path: Path | str) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.samples)

    def where(self, index: int) -> str:
        return self.samples[index].origin

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[self._checked(index)]
        if sample.problem is not None:
            raise sample.problem
        return sample
