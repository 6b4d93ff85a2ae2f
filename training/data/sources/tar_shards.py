"""Tar shards as WebDataset writes them: members that share a name up to the first dot are one sample.

`000012.json` (a record of any shape), `000012.txt` (a caption) or `000012.cls` (a class) with `000012.jpg`, `.png`,
`.mp4`, `.pdf`, `.nii.gz`; several media of a sample are `000012.0.jpg`, `000012.1.jpg`. Samples are read in any order
by their place in the file (see training.data.tar_index); media are handed on as bytes. A shard holds no folders: a
volume is one NIfTI or multi-frame DICOM file, or one file a channel.
"""

import json
import logging
import os
import re
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.data.media_names import has_words, kind_of, lists_media, with_media
from training.data.records import MEDIA_KEYS, RecordError
from training.data.sample import Sample
from training.data.sources.registry import DataError, Source, register_source
from training.data.tar_index import index_tar
from vlm.errors import SampleError

logger = logging.getLogger(__name__)
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
OPEN_FILES = 16
Medium = Callable[[int, int], bytes]  # (sample, its member) -> content


def shard_files(path: Path | str) -> list[Path]:
    """The shards that a path names, in order: one file, the .tar files of a folder, or a pattern like
    `shards-{000000..000012}.tar` (not checked to exist).
    """
    text = str(path)
    if found := RANGE.search(text):
        first, last = found[1], found[2]
        numbers = range(int(first), int(last) + 1)
        expanded = [RANGE.sub(str(number).zfill(len(first)), text, count=1) for number in numbers]
        return [file for one in expanded for file in shard_files(one)]
    path = Path(path)
    return sorted(path.glob("*.tar")) if path.is_dir() else [path]


@register_source("tar_shards")
class TarShardsSource(Source):
    """One .tar file, a folder of them, or a brace pattern."""

    def __init__(self, path: Path | str, **options):
        super().__init__(path, **options)
        self.shards = shard_files(path)
        self._files: dict[int, int] = {}
        # Per sample: its shard and its first member; per member: place, size. Names are kept as one text a shard.
        self._shard_of, self._first = array("L"), array("Q")
        self._offsets, self._sizes = array("Q"), array("Q")
        self._names: list[str] = []
        self._keys: list[str] = []
        self._broken: dict[int, str] = {}  # sample -> why the rest of its shard cannot be read
        for number, shard in enumerate(self.shards):
            self._add(number, shard)
        self._first.append(len(self._offsets))
        if not self._shard_of:
            raise DataError(f"{path} holds no samples")

    @classmethod
    def claims(cls, path: Path | str) -> bool:
        name = str(path)
        if RANGE.search(name) and name.endswith(".tar"):
            return True
        path = Path(path)
        if path.is_dir():
            return any(path.glob("*.tar")) and not any(path.glob("*.jsonl"))
        return path.is_file() and name.endswith((".tar", *COMPRESSED))

    @staticmethod
    def default_name(path: Path | str) -> str:
        path = Path(path)
        return path.name if path.is_dir() else RANGE.sub("", path.name).removesuffix(".tar").rstrip("-_.")

    def __len__(self) -> int:
        return len(self._shard_of)

    def where(self, index: int) -> str:
        return f"{self.shards[self._shard_of[index]]}:{self._keys[index]}"

    def __getitem__(self, index: int) -> Sample:
        return self._sample(self._checked(index), self._bytes)

    def outline(self, index: int) -> Sample:
        """A sample whose words alone are read."""
        return self._sample(self._checked(index), lambda index, member: b"")

    def _sample(self, index: int, medium: Medium) -> Sample:
        origin = self.where(index)
        default_id = f"{self.shards[self._shard_of[index]].stem}/{self._keys[index]}"
        if index in self._broken:
            raise SampleError(f"the shard ends here: {self._broken[index]}", default_id, origin, "truncated_shard")
        try:
            record = self._record(index, medium)
        except RecordError as error:
            message, reason = error.args
            raise SampleError(message, default_id, origin, reason) from None
        return self.parse(record, default_id, origin, None)

    def _add(self, number: int, shard: Path) -> None:
        """Puts the samples of one shard behind those of the others."""
        if str(shard).endswith(COMPRESSED):
            raise DataError(f"{shard} is compressed: unpack it to a plain .tar, whose samples can be read in any order")
        if not shard.is_file():
            raise DataError(f"shard {str(shard)!r} does not exist")
        found = index_tar(shard)
        groups: dict[str, list[int]] = {}
        for member, name in enumerate(found.names):
            key = sample_key(name)
            if key is not None:
                groups.setdefault(key, []).append(member)
        for key, members in groups.items():
            self._shard_of.append(number)
            self._first.append(len(self._offsets))
            self._keys.append(key)
            for member in members:
                self._offsets.append(found.offsets[member])
                self._sizes.append(found.sizes[member])
                self._names.append(found.names[member].rpartition("/")[2].partition(".")[2])
        if found.broken:
            logger.warning("%s: %s; %d samples before that are used", shard, found.broken, len(groups))
            self._broken[len(self._shard_of)] = found.broken
            self._shard_of.append(number)
            self._first.append(len(self._offsets))
            self._keys.append("(end)")

    def _record(self, index: int, medium: Medium) -> dict[str, Any]:
        """The members of a sample as one record, media as the bytes that `medium` gives."""
        members = {}
        for member in range(self._first[index], self._first[index + 1]):
            name = self._names[member]
            if name.lower() in members:
                raise RecordError(f"two members are called {self._keys[index]}.{name}", "name_collision")
            members[name.lower()] = member
        texts, media = {}, []
        for name, member in members.items():
            if kind := kind_of("." + name):
                media.append((kind, name, member))
            elif name in ("json", "txt", "cls"):
                texts[name] = self._text(index, member, name)
        record = self.renamed({**texts, **_decoded(texts.get("json", "{}"))})
        record = {key: value for key, value in record.items() if key not in texts}
        if not has_words(record):
            words = texts.get("txt", texts.get("cls"))
            if words is None:
                there = ", ".join(sorted(members))
                message = "no words: the sample has no .txt, no .cls and no .json with a conversation or a caption"
                raise RecordError(f"{message}; it has {there}", "schema")
            record = {**record, "text": words}
        if lists_media(record):
            return self._named(record, index, media, medium)
        return with_media(record, [(kind, medium(index, member)) for kind, _, member in media])

    def _named(
        self, record: dict[str, Any], index: int, media: list[tuple[str, str, int]], medium: Medium
    ) -> dict[str, Any]:
        """Media that the record lists by name -> the bytes of those members. Raises RecordError."""
        key = self._keys[index]
        places = {}
        for _, name, member in media:
            whole = f"{key}.{name}"
            places |= dict.fromkeys((name, whole, whole.rpartition("/")[2]), member)

        def found(value: Any, is_volume: bool = False) -> Any:
            if isinstance(value, list):
                return [found(one, is_volume) for one in value]
            if is_volume and isinstance(value, dict):  # {channel: member}
                return {channel: found(one, is_volume) for channel, one in value.items()}
            if not isinstance(value, str):
                return value
            member = places.get(value.lower(), places.get(value))
            if member is None and value.rpartition("/")[2] in places:
                member = places[value.rpartition("/")[2]]
            if member is None:
                there = ", ".join(f"{key}.{name}" for _, name, _ in media) or "none"
                message = f"the record names {value!r}, which is no member of its sample; media there: {there}"
                if is_volume:
                    message += ". A shard holds no folders: a volume is one NIfTI or multi-frame DICOM file in it"
                raise RecordError(message, "missing_file")
            return medium(index, member)

        def item(one: Any, is_volume: bool = False) -> Any:
            if not isinstance(one, dict):
                return found(one, is_volume)
            if not {"type", *MEDIA_KEYS, "path"} & set(one):
                return found(one, is_volume=True)
            is_volume = one.get("type") == "volume" or "volume" in one
            return {**one, **{name: found(one[name], is_volume) for name in (*MEDIA_KEYS, "path") if name in one}}

        record = dict(record)
        for kind, keys in MEDIA_KEYS.items():
            for name in keys:
                if record.get(name) is not None:
                    value, is_volume = record[name], kind == "volume"
                    several = isinstance(value, list)
                    record[name] = [item(one, is_volume) for one in value] if several else item(value, is_volume)
        if isinstance(record.get("messages"), list):
            record["messages"] = [
                {**turn, "content": [item(one) if isinstance(one, dict) else one for one in turn["content"]]}
                if isinstance(turn, dict) and isinstance(turn.get("content"), list)
                else turn
                for turn in record["messages"]
            ]
        return record

    def _text(self, index: int, member: int, name: str) -> str:
        try:
            return self._bytes(index, member).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise RecordError(f"the .{name} is not UTF-8 text: {error}", "bad_text") from None

    def _bytes(self, index: int, member: int) -> bytes:
        size = self._sizes[member]
        data = os.pread(self._file(self._shard_of[index]), size, self._offsets[member])
        if len(data) != size:
            raise RecordError("the shard became shorter while it was read", "truncated_shard")
        return data

    def _file(self, shard: int) -> int:
        """Descriptor of a shard; opened late, so that worker processes have their own, and only some at a time."""
        if shard not in self._files:
            if len(self._files) >= OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self.shards[shard], os.O_RDONLY)
        return self._files[shard]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}

    def __del__(self):
        for descriptor in getattr(self, "_files", {}).values():
            os.close(descriptor)


def sample_key(name: str) -> str | None:
    """`./folder/000012.0.jpg` -> `folder/000012`; None for hidden files and names without a suffix."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, _ = base.partition(".")
    return folder + slash + stem if stem and dot else None


def _decoded(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the .json is not JSON: {error}", "bad_json") from None
    if isinstance(record, list):  # a bare conversation
        is_llava = bool(record) and isinstance(record[0], dict) and "from" in record[0]
        record = {"conversations" if is_llava else "messages": record}
    if not isinstance(record, dict):
        raise RecordError(f"the .json is no object but a {type(record).__name__}", "schema")
    return record
