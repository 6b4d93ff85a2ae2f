"""Tensors of safetensors files, read one at a time into memory of their own.

`safe_open` maps the file: pages it has touched count as memory of the process beside the copy a model keeps, twice the
size of the checkpoint in all. Plain reads into fresh tensors need the size once, and rows of a fused matrix can be read
without the rest. The header is checked before anything is read: lengths, dtypes, offsets, and that no two tensors share
bytes or leave some over.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from encoders.errors import RadioCheckpointError, what_it_is

# https://huggingface.co/docs/safetensors: names of the format
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER = 100_000_000  # bytes; the format's own limit
FETCH_AGAIN = "the file is cut short or damaged: fetch or copy it again"

Rows = tuple[int, int]


class TensorReader(ABC):
    """Named tensors that are read when asked for. Shapes and dtypes are known without reading."""

    @abstractmethod
    def keys(self) -> list[str]:
        """All names."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """Dtype of one tensor."""

    @abstractmethod
    def read(self, name: str, rows: Rows | None = None) -> torch.Tensor:
        """One tensor, or its rows `start..stop` of the first dimension, in memory that nothing else uses."""

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


class MemoryTensors(TensorReader):
    """Tensors that are in memory already; `read` copies unless the tensor is the only content of its storage."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = {name: tensor.detach() for name, tensor in tensors.items()}

    def keys(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str, rows: Rows | None = None) -> torch.Tensor:
        tensor = self._tensors[name]
        if rows is not None:
            tensor = tensor[slice(*rows)]
        alone = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        return tensor if alone and tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)


def read_bytes(path: Path, offset: int, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> torch.Tensor:
    """A tensor from the bytes at `offset` of a file. Raises `RadioCheckpointError` when the file ends before it."""
    raw = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8)
    view = memoryview(raw.numpy())
    done = 0
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while done < len(view):  # one read returns 2 GiB at most
            got = file.readinto(view[done:])
            if not got:
                raise RadioCheckpointError(f"{path} ends inside of weight '{name}': {FETCH_AGAIN}")
            done += got
    return raw.view(dtype).view(shape)


class _Entry:
    """Where one tensor lies."""

    __slots__ = ("path", "offset", "shape", "dtype")

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype


class TensorFiles(TensorReader):
    """All tensors of one or several safetensors files.

    Args:
        paths: the files. Their headers are read and checked at once.
        index: weight name -> file name, as in the `weight_map` of an index file: what the files must hold.

    Raises:
        RadioCheckpointError: a file that is absent, cut short or damaged, a weight that is in two files, or one that
            the index names and its file lacks. The message names file and weight.
    """

    def __init__(self, paths: Iterable[str | Path], index: Mapping[str, str] | None = None) -> None:
        self._entries: dict[str, _Entry] = {}
        for path in map(Path, paths):
            for name, entry in read_header(path).items():
                if name in self._entries:
                    raise RadioCheckpointError(f"weight '{name}' is in both {self._entries[name].path} and {path}")
                self._entries[name] = entry
        for name, file in (index or {}).items():
            if name not in self._entries or self._entries[name].path.name != Path(file).name:
                raise RadioCheckpointError(f"the index says that weight '{name}' is in {file}, and it is not there")

    def keys(self) -> list[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._entries[name].dtype

    def read(self, name: str, rows: Rows | None = None) -> torch.Tensor:
        entry = self._entries[name]
        offset, shape = row_range(entry.offset, entry.shape, entry.dtype, rows)
        return read_bytes(entry.path, offset, shape, entry.dtype, name)


def row_range(
    offset: int, shape: tuple[int, ...], dtype: torch.dtype, rows: Rows | None
) -> tuple[int, tuple[int, ...]]:
    """Offset and shape of rows `start..stop` of a contiguous tensor that begins at `offset`; of all without `rows`."""
    if rows is None:
        return offset, shape
    start, stop = rows
    if not 0 <= start <= stop <= shape[0]:
        raise IndexError(f"rows {start}..{stop} of {shape[0]}")
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    return offset + start * row_bytes, (stop - start, *shape[1:])


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; `ValueError` when a name comes twice, which `json` would take silently."""
    found: dict = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' is there twice")
        found[name] = value
    return found


def read_header(path: Path) -> dict[str, _Entry]:
    """Where the tensors of one safetensors file lie, checked against the size of the file."""
    if not path.is_file():
        raise RadioCheckpointError(f"{path} does not exist or is not a file")
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, MAX_HEADER):
            raise RadioCheckpointError(
                f"{path} is not a whole safetensors file ({size} bytes){what_it_is(path)}: {FETCH_AGAIN}"
            )
        text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_no_duplicates)
        if not isinstance(header, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise RadioCheckpointError(f"the header of {path} cannot be read ({error}): {FETCH_AGAIN}") from None
    data = 8 + length
    spans = []
    entries = {}
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        shape, dtype, begin, end = _check_fields(path, name, fields)
        if end > size - data:
            raise RadioCheckpointError(f"{path} ends before weight '{name}' does: {FETCH_AGAIN}")
        spans.append((begin, end, name))
        entries[name] = _Entry(path, data + begin, shape, dtype)
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise RadioCheckpointError(f"{path}: weight '{name}' does not begin where the one before it ends")
        position = end
    if position != size - data:
        raise RadioCheckpointError(f"{path} has {size - data - position} bytes after its last weight: {FETCH_AGAIN}")
    return entries


def _check_fields(path: Path, name: str, fields: object) -> tuple[tuple[int, ...], torch.dtype, int, int]:
    """Shape, dtype, begin and end of one tensor as its header says, or `RadioCheckpointError`."""
    try:
        shape, (begin, end), dtype_name = tuple(fields["shape"]), fields["data_offsets"], fields["dtype"]
        numbers = (*shape, begin, end)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise RadioCheckpointError(f"{path}: the header entry of weight '{name}' is not understood") from None
    dtype = DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if dtype is None:
        raise RadioCheckpointError(f"{path}: weight '{name}' has the unknown dtype {dtype_name!r}")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise RadioCheckpointError(
            f"{path}: weight '{name}' of shape {list(shape)} and dtype {dtype_name} cannot have {end - begin} bytes"
        )
    return shape, dtype, begin, end
