"""Videos and subtitles of a benchmark by name, from loose files or out of the archives that the hub keeps them in.

An archive is never unpacked whole: 100 GB of videos are not needed for ten questions. Its table of contents is read,
and a file is taken out, into the cache folder, when a question asks for it. Whoever has unpacked the archives in the
local copy already is served from there.
"""

from __future__ import annotations

import bisect
import fnmatch
import io
import logging
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from eval.sources import MAX_UNPACKED, DataPlaces, Source

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".MP4", ".MKV", ".AVI", ".MOV", ".flv", ".m4v", ".gif")
_PART = re.compile(r"\.part[._-]?\w+$")  # videos.tar.part.aa: one tar in pieces
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Entry:
    """One file of a benchmark: where it is, or will be once `take_out` has written it there."""

    name: str  # as the archive or the folder has it: data/fFjv93ACGo8.mp4
    path: Path
    size: int = 0
    take_out: Callable[[IO[bytes]], None] | None = None

    def file(self) -> str:
        """The path, after taking the file out of its archive. Processes that want the same file wait for one."""
        if self.take_out is None or self._is_there():
            return str(self.path)
        from filelock import FileLock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            if not self._is_there():
                draft = self.path.with_name(f".{self.path.name}.part")
                with draft.open("wb") as out:
                    self.take_out(out)
                draft.replace(self.path)
        return str(self.path)

    def _is_there(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size == self.size


class ArchivedFiles:
    """The files of one kind that stand beside the tables of a benchmark's repository."""

    def __init__(
        self, source: Source, places: DataPlaces, task: str, archives: Sequence[str], suffixes: Sequence[str]
    ) -> None:
        """
        Args:
            archives: patterns of the archives' names: `videos_chunked_*.zip`, `videos.tar.part.*`.
            suffixes: of the files; a name asked for without one is looked for with each of them, in this order.

        Raises FileNotFoundError where there is neither such a file nor such an archive.
        """
        self._source, self._places, self._task, self._suffixes = source, places, task, tuple(suffixes)
        self._known: dict[str, list[Entry]] = defaultdict(list)
        self._local = source.local_folder(places.root, task)
        if self._local is not None:
            for folder, _, names in os.walk(self._local):
                for name in names:
                    if name.endswith(self._suffixes):
                        path = Path(folder) / name
                        self._known[name].append(Entry(path.relative_to(self._local).as_posix(), path.resolve()))
        self._unopened = _in_pieces(self._names(archives))
        if not self._known and not self._unopened:
            raise FileNotFoundError(
                f"task {task}: {self._where()} has no {self._suffixes[0]} files and no archives of them"
                f" ({', '.join(archives)}). Copy the whole repository:\n"
                f"  hf download {source.repo} --repo-type dataset --local-dir {Path(places.root) / source.repo}"
            )

    def find(self, name: str) -> str:
        """The path of the file called `name`, with or without suffix and folder.

        Raises FileNotFoundError naming it; ValueError for an archive that is damaged or would write elsewhere.
        """
        wanted = PurePosixPath(name)
        spellings = [name] if wanted.name.endswith(self._suffixes) else [f"{name}{s}" for s in self._suffixes]
        while True:
            for spelling in spellings:
                if entry := self._match(PurePosixPath(spelling)):
                    return entry.file()
            if not self._unopened:
                raise FileNotFoundError(f"{spellings[0]}: no such file in {self._where()} or its archives")
            self._open(self._unopened[0])
            del self._unopened[0]  # one that cannot be opened stays, to be named again for the next file

    def _match(self, wanted: PurePosixPath) -> Entry | None:
        """The file of that name; where several folders have one, the one whose folders fit too, else the first."""
        entries = self._known.get(wanted.name, [])
        fitting = [entry for entry in entries if f"/{entry.name}".endswith(f"/{wanted}")]
        return next(iter(fitting or entries), None)

    def _names(self, patterns: Sequence[str]) -> list[str]:
        """Archives of the local copy, or of the repository on the hub; nothing is downloaded."""
        if self._local is not None:
            found = (path.relative_to(self._local).as_posix() for path in self._local.rglob("*") if path.is_file())
        else:
            from huggingface_hub import list_repo_files

            try:
                found = list_repo_files(self._source.repo, repo_type="dataset", revision=self._source.revision)
            except Exception as error:  # no network, a gated repository: each has its own class
                raise FileNotFoundError(
                    f"task {self._task}: the files of {self._source.repo} cannot be listed"
                    f" ({type(error).__name__}: {str(error)[:200]})"
                ) from error
        return sorted(name for name in found if any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in patterns))

    def _open(self, pieces: list[str]) -> None:
        """Adds the contents of an archive to what is known."""
        folder = self._source.files(self._places.root, self._task, pieces)
        paths = [folder / piece for piece in pieces]
        into = self._places.cache_folder / "unpacked" / self._source.repo / _PART.sub("", paths[0].name)
        logger.info("looking into %s", paths[0])
        opened = _zip_entries(paths[0], into) if paths[0].suffix == ".zip" else _tar_entries(paths, into)
        for entry in opened:
            if entry.name.endswith(self._suffixes):
                self._known[PurePosixPath(entry.name).name].append(entry)

    def _where(self) -> str:
        return str(self._local or self._source.repo)


def _in_pieces(names: Sequence[str]) -> list[list[str]]:
    """Archives as lists of their pieces, in order; most have one."""
    archives: dict[str, list[str]] = {}
    for name in names:
        archives.setdefault(_PART.sub("", name), []).append(name)
    return list(archives.values())


def _checked(archive: Path, name: str, size: int) -> PurePosixPath:
    """The path below the folder to unpack into. Raises ValueError for one that leaves it, or for an absurd size."""
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{archive}: {name} would leave the folder it is unpacked into")
    if size > MAX_UNPACKED:
        raise ValueError(f"{archive}: {name} unpacks to more than {MAX_UNPACKED:,} bytes")
    return inner


def _zip_entries(archive: Path, into: Path) -> list[Entry]:
    """The files of a zip archive. All names are checked before the first is taken out."""

    def taker(name: str) -> Callable[[IO[bytes]], None]:
        def take_out(out: IO[bytes]) -> None:
            try:
                with zipfile.ZipFile(archive) as zipped, zipped.open(name) as content:
                    shutil.copyfileobj(content, out, 1 << 20)
            except _DAMAGE as error:
                raise ValueError(f"{archive}: {name} cannot be taken out: {error}") from error

        return take_out

    try:
        with zipfile.ZipFile(archive) as zipped:
            listed = [(info.filename, info.file_size) for info in zipped.infolist() if not info.is_dir()]
    except _DAMAGE as error:
        raise ValueError(f"{archive}: no readable zip archive: {error}") from error
    return [Entry(name, into / _checked(archive, name, size), size, taker(name)) for name, size in listed]


def _tar_entries(pieces: Sequence[Path], into: Path) -> list[Entry]:
    """The plain files of an uncompressed tar archive, which may lie in pieces. Links are left out."""

    def taker(offset: int, size: int) -> Callable[[IO[bytes]], None]:
        def take_out(out: IO[bytes]) -> None:
            with InPieces(pieces) as whole:
                whole.seek(offset)
                left = size
                while left:
                    block = whole.read(min(left, 1 << 20))
                    if not block:
                        raise ValueError(f"{pieces[-1]}: the archive ends too soon; is a piece missing?")
                    out.write(block)
                    left -= len(block)

        return take_out

    try:
        with InPieces(pieces) as whole, tarfile.open(fileobj=whole, mode="r:") as tar:
            listed = [(member.name, member.size, member.offset_data) for member in tar if member.isreg()]
    except _DAMAGE as error:
        raise ValueError(f"{pieces[0]}: no readable tar archive: {error}") from error
    return [Entry(name, into / _checked(pieces[0], name, size), size, taker(at, size)) for name, size, at in listed]


class InPieces(io.RawIOBase):
    """Files read as if they were one, laid end to end."""

    def __init__(self, pieces: Sequence[Path]) -> None:
        self._files = [piece.open("rb") for piece in pieces]
        self._starts = [0]
        for piece in pieces:
            self._starts.append(self._starts[-1] + piece.stat().st_size)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer) -> int:
        """Fills `buffer` across the ends of pieces: tarfile takes a short read for the end of the archive."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and self._at < self._starts[-1]:
            piece = bisect.bisect_right(self._starts, self._at) - 1
            self._files[piece].seek(self._at - self._starts[piece])
            count = self._files[piece].readinto(view[filled : filled + self._starts[piece + 1] - self._at])
            if not count:
                break
            filled, self._at = filled + count, self._at + count
        return filled

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
