"""One training sample, whatever file it came from: a conversation whose turns hold text and media.

Every source yields `Sample`s and everything after it (mixture, dataset, validator) knows nothing else, so a new file
format touches one file. A sample remembers where it stood (`records.jsonl:12`), so that every later error can say so.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm.errors import SampleError
from vlm.media.inside import check_inside
from vlm.media_types import MEDIA_TYPES


@dataclass(frozen=True)
class Sample:
    """`messages`: [{"role", "content": [{"type": "text" or one of MEDIA_TYPES, ...}]}], media as written.

    id: unique within its source; source: the source's name (losses are reported by it); meta: everything else of the
    record (gold answers, task, licence); base_dir: the folder that media paths are relative to and may not leave;
    origin: "file:line", for error messages; template: what the chat template is told beside the messages (`tools`,
    `enable_thinking`); problem: why the record could not be read, when a stream hands on a record that could not be.
    """

    id: str
    source: str
    messages: list[dict[str, Any]]
    meta: dict[str, Any] = field(default_factory=dict)
    base_dir: Path | None = None
    origin: str = ""
    template: dict[str, Any] = field(default_factory=dict)
    problem: SampleError | None = None

    def media_items(self) -> Iterator[dict[str, Any]]:
        """The content items that are media, in the order of the conversation."""
        for message in self.messages:
            yield from (item for item in message["content"] if item["type"] in MEDIA_TYPES)

    def media(self) -> Iterator[tuple[str, Any]]:
        """(one of MEDIA_TYPES, path or {channel: path} as written, or an object in memory), in order."""
        for item in self.media_items():
            yield item["type"], item[item["type"]]

    def resolved_messages(self) -> list[dict[str, Any]]:
        """The messages with absolute media paths, as `processor.encode` takes them.

        Raises SampleError when a path leaves `base_dir` or names no file.
        """
        return [
            {**message, "content": [self._resolved(item) for item in message["content"]]} for message in self.messages
        ]

    def resolve(self, reference: Any, kind: str = "image") -> Any:
        """A media path as written -> absolute path below `base_dir`; objects in memory are returned as they are.

        A row of a Hugging Face dataset (`{"bytes": ..., "path": ...}`) becomes its bytes, or its path by the same rule.
        A volume may be a folder, or {channel: path} of MRI sequences.
        """
        if kind == "volume" and isinstance(reference, dict) and not set(reference) <= {"bytes", "path"}:
            return {name: self.resolve(one, kind) for name, one in reference.items() if one is not None}
        if isinstance(reference, dict):
            data = reference.get("bytes")
            if isinstance(data, (bytes, bytearray)):
                return bytes(data)
            if data is not None or not isinstance(reference.get("path"), (str, os.PathLike)):
                raise self.error(f"a medium is a path or bytes, not {reference!r:.80}", "schema")
            reference = reference["path"]
        if not isinstance(reference, (str, os.PathLike)):
            return reference
        try:
            return resolve_media(os.fspath(reference), self.base_dir, folder=kind == "volume")
        except SampleError as error:
            raise self.error(error.message, error.reason) from None

    def error(self, message: str, reason: str) -> SampleError:
        """A SampleError that says where this sample stands. `reason` is a short code that reports count by."""
        return SampleError(message, self.id, self.origin or self.source, reason)

    def has_answer(self) -> bool:
        """Whether an assistant turn says or calls anything, i.e. whether there is anything to learn."""
        return any(
            message.get("tool_calls")
            or any(item["type"] == "text" and item["text"].strip() for item in message["content"])
            for message in self.messages
            if message["role"] == "assistant"
        )

    def _resolved(self, item: dict[str, Any]) -> dict[str, Any]:
        kind = item["type"]
        return {**item, kind: self.resolve(item[kind], kind)} if kind in MEDIA_TYPES else item


def resolve_media(reference: str, root: Path | None, folder: bool = False) -> str:
    """A media reference of a data file -> absolute path of an existing file below `root`; with `folder` also of a
    folder whose files all lie below `root`.

    Links are followed before the check: neither `..`, an absolute path nor a symbolic link may lead out of the data
    folder, because data files come from strangers and what they name ends up in a model and its reports. Raises
    SampleError with reason "remote_media", "outside_folder" or "missing_file".
    """
    if "://" in reference or reference.startswith("data:"):
        raise SampleError(
            f"{reference[:80]!r} is not a file: download it into the data folder first", reason="remote_media"
        )
    if root is None:
        raise SampleError(
            f"{reference!r} has no data folder to be relative to: set media_root", reason="outside_folder"
        )
    if "\0" in reference or not reference.strip():
        raise SampleError(f"{reference!r} is no path", reason="missing_file")
    top = os.path.realpath(root)
    path = os.path.realpath(os.path.join(top, reference))
    if path != top and not path.startswith(top.rstrip(os.sep) + os.sep):
        raise SampleError(
            f"media path {reference!r} leaves the data folder {top}; media_root names another folder",
            reason="outside_folder",
        )
    if folder and os.path.isdir(path):
        check_inside(path, top)
    elif not os.path.isfile(path):
        raise SampleError(f"media file {reference!r} does not exist in {top}", reason="missing_file")
    return path
