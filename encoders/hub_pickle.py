"""Files that torch.hub loads (`.pth.tar`), opened without running what is in them.

They are pickles: besides tensors they hold the training arguments as an `argparse.Namespace`. torch's own restricted
unpickler reads them, with that one class admitted (and `types.SimpleNamespace`) and nothing that other code of this
process may have admitted before.
"""

import argparse
import ctypes
import mmap
import pickle
import re
import sys
import types
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import serialization

from encoders.errors import RadioCheckpointError, what_it_is
from encoders.tensor_files import FETCH_AGAIN, MemoryTensors, Rows, TensorReader

ADMITTED = (argparse.Namespace, types.SimpleNamespace)
PIECE = 1 << 22  # elements copied between two returns of pages
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


def load_hub_file(path: str | Path) -> dict:
    """The object in a `.pth.tar`, `.pth`, `.pt` or `.bin` file, which must be a dict.

    Args:
        path: zip format (its tensors are mapped, not read: take them through `HubTensors`) or the format before it.

    Raises:
        RadioCheckpointError: the file is damaged or needs a class or function other than tensors and namespaces. None
            of its code has run then.
    """
    path = Path(path)
    if not path.is_file():
        raise RadioCheckpointError(f"{path} does not exist or is not a file")
    try:
        with _only_admitted(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protocol numbers and TypedStorage: nothing a user can act on
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except Exception as error:  # a damaged pickle can raise anything
        raise _explain(path, error) from None
    if not isinstance(content, dict):
        raise RadioCheckpointError(f"{path} holds a {type(content).__name__}, not a dict with weights")
    return content


def _can_map(path: Path) -> bool:
    """Whether tensors lie in the file as they are in memory: an uncompressed zip archive, same byte order."""
    try:
        with zipfile.ZipFile(path) as archive:
            order = [archive.read(name) for name in archive.namelist() if name.endswith("/byteorder")]
            stored = all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        return False
    return stored and all(name == sys.byteorder.encode() for name in order)


def _explain(path: Path, error: Exception) -> RadioCheckpointError:
    """One sentence for what the unpickler says in ten, without its advice to trust the file."""
    refused = REFUSED.search(str(error)) if isinstance(error, (pickle.UnpicklingError, RuntimeError)) else None
    if refused:
        what = next(group for group in refused.groups() if group)
        return RadioCheckpointError(
            f"{path} contains '{what}', which is neither a tensor nor a plain namespace; it was not run. "
            "Save the weights again as safetensors, or without that object"
        )
    advice = ("Check the documentation", "Please file an issue", "Weights only load failed")
    said = [line for line in str(error).splitlines() if line.strip() and not line.startswith(advice)]
    said = f"{type(error).__name__}: {said[-1].strip()[:200]}" if said else type(error).__name__
    return RadioCheckpointError(f"{path} is not a readable checkpoint{what_it_is(path)} ({said}): {FETCH_AGAIN}")


class HubTensors(TensorReader):
    """The state dict of a file opened with `load_hub_file`; what `read` returns is no longer mapped.

    Pages of the file that were read count as memory of the process until they are given back, which happens here, so
    that loading a checkpoint needs its size once.
    """

    def __init__(self, path: str | Path, state: Mapping[str, torch.Tensor]) -> None:
        self._state = {name: tensor.detach() for name, tensor in state.items()}
        self._mapped = _can_map(Path(path))
        self._memory = MemoryTensors(self._state)

    def keys(self) -> list[str]:
        return list(self._state)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._state[name].dtype

    def read(self, name: str, rows: Rows | None = None) -> torch.Tensor:
        if not self._mapped:
            return self._memory.read(name, rows)
        tensor = self._state[name]
        if rows is not None:
            tensor = tensor[slice(*rows)]
        copy = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if not tensor.is_contiguous():
            return copy.copy_(tensor)
        for target, piece in zip(copy.view(-1).split(PIECE), tensor.view(-1).split(PIECE)):
            target.copy_(piece)
            _release_pages(piece)
        return copy


def _release_pages(tensor: torch.Tensor) -> None:
    """Give the pages of mapped elements back. They have not been written to, so reading them again finds the file."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    stop = tensor.data_ptr() + tensor.numel() * tensor.element_size()
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)
