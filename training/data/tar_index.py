"""Where the members of a tar file lie: read from its headers alone, so that a shard of any size is indexed in a moment
and its members are then read by position, without unpacking.

Understands what tar programs write: ustar with its name prefix, GNU long names, pax names and sizes. Names are only
names here: nothing is ever written to or looked up on disk, and links are passed over. `tarfile` is the slow twin.
"""

import os
from dataclasses import dataclass, field

BLOCK = 512
REGULAR = b"0\0007"  # file, old file, contiguous file
NAMES_TOO_LONG = 1 << 20  # bytes of a name or pax header; more is no tar file


@dataclass
class TarIndex:
    """Regular members in order. `broken`: what is wrong with the rest of the file, None for a whole one."""

    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    broken: str | None = None


def index_tar(path: str | os.PathLike) -> TarIndex:
    """The members of an uncompressed tar file. A cut or damaged file gives the members before the damage."""
    index = TarIndex()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _walk(descriptor, os.fstat(descriptor).st_size, index)
    finally:
        os.close(descriptor)
    return index


def _walk(descriptor: int, end: int, index: TarIndex) -> None:
    position, long_name, pax = 0, None, {}
    while position < end:
        header = os.pread(descriptor, BLOCK, position)
        if len(header) < BLOCK:
            index.broken = f"cut off within a header at byte {position}"
            return
        if header.count(0) == BLOCK:  # two empty blocks end an archive; joined archives go on behind them
            position += BLOCK
            continue
        size = _number(header[124:136])
        if size is None or not _checksum_fits(header):
            index.broken = f"no tar header at byte {position}"
            return
        kind, start = header[156:157], position + BLOCK
        if kind not in b"LKxg" and "size" in pax:
            size = pax["size"]
        if start + size > end:
            index.broken = f"member {_name(header, long_name, pax)!r} is cut off: {end - start} of {size} bytes"
            return
        position = start + -(-size // BLOCK) * BLOCK
        if kind in b"LKxg":
            if size > NAMES_TOO_LONG:
                index.broken = f"a name of {size} bytes at byte {start}"
                return
            data = os.pread(descriptor, size, start)
            if kind == b"L":
                long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif kind == b"x":
                pax = _pax(data)
            continue
        if kind in REGULAR and not _name(header, long_name, pax).endswith("/"):
            index.names.append(_name(header, long_name, pax))
            index.offsets.append(start)
            index.sizes.append(size)
        long_name, pax = None, {}


def _name(header: bytes, long_name: str | None, pax: dict) -> str:
    if "path" in pax:
        return pax["path"]
    if long_name is not None:
        return long_name
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345:346] != b"\0":
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _number(field_: bytes) -> int | None:
    """Octal text, or base 256 with the first bit set."""
    if field_[0] & 0x80:
        return int.from_bytes(bytes([field_[0] & 0x7F]) + field_[1:], "big")
    text = field_.strip(b" \0")
    try:
        return int(text or b"0", 8)
    except ValueError:
        return None


def _checksum_fits(header: bytes) -> bool:
    stored = _number(header[148:156])
    return stored == sum(header) - sum(header[148:156]) + 8 * 0x20


def _pax(data: bytes) -> dict:
    """The `path` and `size` of a pax header, lines of "LENGTH KEY=VALUE\\n"."""
    found, position = {}, 0
    while position < len(data):
        length, _, rest = data[position:].partition(b" ")
        if not length.isdigit() or int(length) <= len(length) + 1:
            break
        line = rest[: int(length) - len(length) - 2]
        key, _, value = line.partition(b"=")
        if key == b"path":
            found["path"] = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit():
            found["size"] = int(value)
        position += int(length)
    return found
