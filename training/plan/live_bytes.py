"""The bytes of tensors that are alive, operation by operation: what a GPU's allocator would count, on any device.

Used twice, so that the two can be compared: on the meta device, where a model of any size runs without memory, to
plan a stage; and on the CPU around a real step, to check the plan.
"""

import weakref
from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Inside, every storage that an operation returns counts from then until it is freed. What an operation needs
    inside itself (a kernel's workspace) is not seen.

    Attributes:
        now: bytes alive. peak: the most at any time since the start or the last `mark()`.
        parked: bytes that the caller says are held as well; `peak_parked` is the most of both together.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        """known: tensors that exist already and do not count, such as weights."""
        super().__init__()
        self.now = self.peak = self.parked = self.peak_parked = 0
        self._alive: dict[int, weakref.ref] = {}
        self._known = [tensor.untyped_storage() for tensor in known]  # held, so that no id is given out again
        self._known_ids = {id(storage) for storage in self._known}

    def mark(self) -> int:
        """Start a new peak from what is alive now; returns the old one."""
        peak, self.peak = self.peak, self.now
        return peak

    def park(self, size: int) -> None:
        """Say that `size` bytes more are held from now on."""
        self.parked += size
        self._note()

    def add(self, tensor: torch.Tensor) -> None:
        """Count the storage of a tensor, once."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if not size or key in self._alive or key in self._known_ids:
            return

        def gone(_, key=key, size=size) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self._note()

    def _note(self) -> None:
        self.peak = max(self.peak, self.now)
        self.peak_parked = max(self.peak_parked, self.now + self.parked)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor):
                self.add(value)
        return result
