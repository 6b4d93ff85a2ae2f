"""What can be asked: one file a kind of model, all behind `Backend` (`base.py`). `open_backend` picks the right one."""

from __future__ import annotations

from eval.backends.base import Backend, Decoding, Encoded, Reply
from eval.backends.opening import open_backend

__all__ = ["Backend", "Decoding", "Encoded", "Reply", "open_backend"]
