"""Where public benchmarks come from: the Hugging Face hub, or a copy of the same files in a folder, without a network.

    hf download lmms-lab/DocVQA --repo-type dataset --local-dir benchmarks/lmms-lab/DocVQA
    python eval/run.py --model … --tasks docvqa --data-root benchmarks

A copy is looked for under the hub's name (`benchmarks/lmms-lab/DocVQA`), under its last part, under the task's name.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
MAX_UNPACKED = 2 << 40  # bytes an archive may unpack to: the largest video benchmark is a tenth of it


@dataclass(frozen=True)
class DataPlaces:
    """Folders of the command line: `root` holds copies of benchmarks and made data, `cache` what is written."""

    root: str | Path = "runs/demo/data"
    cache: str | Path = Path("~/.cache/radio-vlm/eval")

    @property
    def cache_folder(self) -> Path:
        return Path(self.cache).expanduser()


@dataclass(frozen=True)
class Source:
    """A dataset of the hub: repository, configuration and split, as `datasets.load_dataset` names them.

    `formerly`: names the repository had before, under which copies may lie (the hub forwards them to the new one).
    """

    repo: str
    split: str
    config: str | None = None
    revision: str | None = None
    formerly: tuple[str, ...] = ()

    def local_folder(self, root: str | Path, task: str) -> Path | None:
        """The copy below `root`, if there is one."""
        names = (self.repo, *self.formerly, self.repo.rsplit("/", 1)[-1], task)
        return next((folder for name in names if (folder := Path(root) / name).is_dir()), None)

    def rows(self, root: str | Path, task: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Rows in their order, pictures undecoded (`{"bytes", "path"}`).

        With `limit` rows are streamed, so that a first look does not download everything. Raises FileNotFoundError with
        the two ways to get the data, OSError where it ends in the middle.
        """
        try:
            import datasets  # noqa: F401 - the message is better here than where it is used
        except ImportError as error:
            raise ValueError("public benchmarks are read with `datasets`: pip install 'radio-vlm[eval]'") from error
        local = self.local_folder(root, task)
        try:
            table = self._from_hub(limit) if local is None else load_copy(local, self.config, self.split)
        except Exception as error:  # no network, no such repository, a gated one: each has its own class somewhere
            raise FileNotFoundError(self._how(root, task, error)) from error
        rows, place = iter(_undecoded(table)), 0
        while limit is None or place < limit:
            try:
                row = next(rows, None)
            except Exception as error:  # damaged files and networks that go away have as many classes
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                raise OSError(
                    f"task {task}: the data of {local or self.repo} cannot be read after row {place} ({reason})"
                ) from error
            if row is None:
                return
            yield dict(row)
            place += 1

    def _from_hub(self, limit: int | None):
        """The table, streamed: over the network with `limit`, else from files that are fetched once.

        The files are read as they are; `load_dataset` would write all of them a second time, as Arrow. Without a
        network, what an earlier run or `hf download` left in the hub's cache is read.
        """
        from datasets import load_dataset, load_dataset_builder
        from huggingface_hub import snapshot_download

        fetch = partial(snapshot_download, self.repo, repo_type="dataset", revision=self.revision)
        try:
            if limit is not None:
                return load_dataset(self.repo, self.config, split=self.split, revision=self.revision, streaming=True)
            builder = load_dataset_builder(self.repo, self.config, revision=self.revision)
            # hf://datasets/OWNER/NAME@COMMIT/path/in/the/repository
            names = [url.split("@", 1)[1].split("/", 1)[1] for url in builder.config.data_files[self.split]]
            folder = fetch(allow_patterns=["README.md", *names])
        except Exception as error:
            try:
                folder = fetch(local_files_only=True)
            except Exception:
                raise error from None
        return load_copy(Path(folder), self.config, self.split)

    def _how(self, root: str | Path, task: str, error: Exception) -> str:
        return (
            f"task {task}: the data cannot be opened ({type(error).__name__}: {str(error)[:200]}). It is"
            f" {self.repo} on the Hugging Face hub; a copy is looked for below --data-root ({root}) as {self.repo},"
            f" {self.repo.rsplit('/', 1)[-1]} or {task}. Without a network, copy it once:\n"
            f"  hf download {self.repo} --repo-type dataset --local-dir {Path(root) / self.repo}\n"
            f"  … --tasks {task} --data-root {root}"
        )

    def files(self, root: str | Path, task: str, patterns: Sequence[str]) -> Path:
        """The folder that holds the files of the repository that match `patterns`: the local copy, or a download.

        For what stands beside the tables: videos, subtitles, archives of pictures.
        """
        local = self.local_folder(root, task)
        if local is not None:
            return local
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(self.repo, repo_type="dataset", revision=self.revision, allow_patterns=list(patterns))
            )
        except Exception as error:  # as above
            raise FileNotFoundError(self._how(root, task, error)) from error


def load_copy(folder: Path, config: str | None, split: str):
    """A local copy of a hub dataset, streamed (no second copy on disk).

    The README of the copy names the configurations; without it the folder of the configuration is read.
    """
    from datasets import load_dataset

    try:
        return load_dataset(str(folder), config, split=split, streaming=True)
    except ValueError:
        if config is None or not (folder / config).is_dir():
            raise
        return load_dataset(str(folder / config), split=split, streaming=True)


def _undecoded(table):
    """The table with pictures left as bytes: they are written to files, not looked at."""
    from datasets import Image
    from datasets import Sequence as ListOf

    for name, feature in (table.features or {}).items():
        if isinstance(feature, Image):
            table = table.cast_column(name, Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), Image):
            table = table.cast_column(name, ListOf(Image(decode=False)))
    return table


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks a zip archive once; returns the folder. Names that would leave it are refused, sizes bounded.

    Processes that want the same archive wait for one, or a file could be read while another writes it again.

    Raises ValueError for such an archive, and for one that is damaged.
    """
    from filelock import FileLock

    target = into / archive.stem
    into.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not (target / ".complete").is_file():
            try:
                _unpack_all(archive, target)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{archive}: no readable zip archive: {error}") from error
            (target / ".complete").touch()
    return target


def _unpack_all(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        if sum(entry.file_size for entry in zipped.infolist()) > MAX_UNPACKED:
            raise ValueError(f"{archive}: unpacks to more than {MAX_UNPACKED:,} bytes")
        for entry in zipped.infolist():
            if not (target / entry.filename).resolve().is_relative_to(target.resolve()):
                raise ValueError(f"{archive}: {entry.filename} would leave the folder it is unpacked into")
        logger.info("unpacking %s", archive)
        zipped.extractall(target)
