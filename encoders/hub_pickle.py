"""Files that torch.hub loads (`.pth.tar`), opened without running what is in them.

They are pickles: besides tensors they hold the training arguments as an `argparse.Namespace`. torch's own restricted
unpickler reads them, with that one class admitted (and `types.SimpleNamespace`) and nothing that other code of this
process may have admitted before.
"""

import argparse
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import serialization
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from encoders.errors import RadioCheckpointError
from encoders.tensor_files import FETCH_AGAIN, MemoryTensors, Rows, TensorReader, read_bytes, row_range

ADMITTED = (argparse.Namespace, types.SimpleNamespace)
REFUSED = re.compile(r"GLOBAL (\S+)|``(\S+)`` (?:and ``\S+`` )?must be imported|unrecognized function (.+)")


@contextmanager
def _only_admitted() -> Iterator[None]:
    """The unpickler's list of further classes is one for the process: empty it, fill it, put it back."""
    before = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(list(ADMITTED))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def load_hub_file(path: str | Path, lazy: bool = False) -> dict:
    """The object in a `.pth.tar`, `.pth`, `.pt` or `.bin` file, which must be a dict.

    Args:
        path: zip format (its tensors are mapped, not read) or the format before it.
        lazy: tensors without data where the format allows, for `HubTensors`.

    Raises:
        RadioCheckpointError: the file is damaged or needs a class or function other than tensors and namespaces. None
            of its code has run then.
    """
    path = Path(path)
    if not path.is_file():
        raise RadioCheckpointError(f"{path} does not exist or is not a file")
    plain = zipfile.is_zipfile(path) and _is_plain_zip(path)
    try:
        with _only_admitted(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protocol numbers and TypedStorage: nothing a user can act on
            if lazy and plain:
                with FakeTensorMode():
                    content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=plain)
    except Exception as error:  # a damaged pickle can raise anything
        raise _explain(path, error) from None
    if not isinstance(content, dict):
        raise RadioCheckpointError(f"{path} holds a {type(content).__name__}, not a dict with weights")
    return content


def _is_plain_zip(path: Path) -> bool:
    """Whether the bytes of the tensors lie in the file as they are: not compressed, little-endian."""
    try:
        with zipfile.ZipFile(path) as archive:
            order = [archive.read(name) for name in archive.namelist() if name.endswith("/byteorder")]
            stored = all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        return False
    return stored and all(name == b"little" for name in order)


def _explain(path: Path, error: Exception) -> RadioCheckpointError:
    """One sentence for what the unpickler says in ten, without its advice to trust the file."""
    refused = REFUSED.search(str(error)) if isinstance(error, (pickle.UnpicklingError, RuntimeError)) else None
    if refused:
        what = next(group for group in refused.groups() if group)
        return RadioCheckpointError(
            f"{path} contains '{what}', which is neither a tensor nor a plain namespace; it was not run. "
            "Save the weights again as safetensors, or without that object"
        )
    said = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {said[-1][:200]}" if said else type(error).__name__
    return RadioCheckpointError(f"{path} is not a readable checkpoint ({said}): {FETCH_AGAIN}")


class HubTensors(TensorReader):
    """The state dict of a file opened with `load_hub_file(path, lazy=True)`: tensors are read when asked for.

    Tensors that hold data already (the format before zip, views with odd strides) are handed out from memory.
    """

    def __init__(self, path: str | Path, state: Mapping[str, torch.Tensor]) -> None:
        self._path = Path(path)
        self._state = dict(state)
        self._memory = MemoryTensors({k: v for k, v in self._state.items() if not isinstance(v, FakeTensor)})
        size = self._path.stat().st_size
        for name, tensor in self._state.items():
            if isinstance(tensor, FakeTensor) and self._offset(name) + self._span(tensor) > size:
                raise RadioCheckpointError(f"{self._path} ends before weight '{name}' does: {FETCH_AGAIN}")

    def _offset(self, name: str) -> int:
        """Where the first element of a tensor lies in the file, in bytes."""
        tensor = self._state[name]
        start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
        if start is None:
            raise RadioCheckpointError(f"{self._path}: weight '{name}' has no data in the file")
        return start + tensor.storage_offset() * tensor.element_size()

    @staticmethod
    def _span(tensor: torch.Tensor) -> int:
        """Bytes from the first element of a tensor to the end of its last."""
        if tensor.numel() == 0:
            return 0
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
        return (last + 1) * tensor.element_size()

    def keys(self) -> list[str]:
        return list(self._state)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._state[name].dtype

    def read(self, name: str, rows: Rows | None = None) -> torch.Tensor:
        tensor = self._state[name]
        if not isinstance(tensor, FakeTensor):
            return self._memory.read(name, rows)
        offset, shape, dtype = self._offset(name), tuple(tensor.shape), tensor.dtype
        if tensor.is_contiguous():
            offset, shape = row_range(offset, shape, dtype, rows)
            return read_bytes(self._path, offset, shape, dtype, name)
        elements = self._span(tensor) // dtype.itemsize
        flat = read_bytes(self._path, offset, (elements,), dtype, name)
        whole = flat.as_strided(shape, tensor.stride())
        return (whole if rows is None else whole[slice(*rows)]).contiguous()
