"""Files that are still there, and whole, after a power loss: on the disk before the file that vouches for them.

A system keeps what is written in memory for a while, and writes small files down before large ones.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path

CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # what file systems say that know no fsync


def flush(folder: Path) -> None:
    """Wait until everything below a folder is on the disk. Others may remove files meanwhile."""
    for path in (*folder.rglob("*"), folder):
        with suppress(FileNotFoundError):
            _sync(path)


def vouch(path: Path, text: str) -> None:
    """Write a small file, whole or not at all, and wait until it is on the disk."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    _sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
    finally:
        os.close(descriptor)
