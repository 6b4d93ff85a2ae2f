"""Reads the questions of an evaluation: a dataset folder, a JSONL file or a LLaVA JSON, as `Sample`s.

Training has its own, larger reader; the two share only the files. A record that cannot be read does not stop an
evaluation: it becomes a `Sample` whose `problem` says what is wrong, and is later counted, named and scored as wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.question_record import item_of, question_of

MEDIA_KINDS = ("image", "video", "document", "volume")  # as `vlm.media_types`, which would load the model's code
_TAG = re.compile(r"(<image>|<video>|<document>|<volume>)")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_SAYS_NOTHING = ("records", "labels", "metadata", "data", "annotations", "train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One record: a conversation whose last assistant turn is the gold answer, with media paths made absolute."""

    id: str
    source: str
    messages: list[dict[str, Any]]
    meta: dict[str, Any] = field(default_factory=dict)
    base_dir: Path = Path(".")
    problem: str | None = None

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The messages before the last assistant turn, ready to be answered."""
        messages = self.messages
        return messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages

    @property
    def question(self) -> str:
        """The text of the last user turn."""
        for message in reversed(self.messages):
            if message["role"] == "user":
                return text_of(message)
        return ""

    @property
    def answers(self) -> list[str]:
        """`meta.answers`, or else the words of the last assistant turn. Numbers in real answer columns become text.

        A missing answer (null) is none; it must not become the text "None".
        """
        answers = self.meta.get("answers")
        if answers is None:
            last = self.messages[-1] if self.messages else None
            answers = [text_of(last)] if last and last["role"] == "assistant" else []
        answers = answers if isinstance(answers, list) else [answers]
        return [str(answer) for answer in answers if answer is not None]

    @property
    def scoring(self) -> dict[str, Any]:
        """What metrics need to know beside the answers, e.g. `options` or `answer_format`: keyword arguments."""
        return dict(self.meta.get("scoring") or {})

    @property
    def unscored(self) -> str | None:
        """Why this answer cannot be scored (it needs a judge, its gold answer is not public), else None."""
        return self.meta.get("unscored")

    @property
    def kind(self) -> str:
        return str(self.meta.get("kind", "all"))

    @property
    def kinds(self) -> list[str]:
        """All sub-scores it counts in: `meta.kinds` (a question about a table and a chart), or else its one kind."""
        return [str(kind) for kind in self.meta.get("kinds") or [self.kind]]

    @property
    def group(self) -> str:
        """What questions about the same image or video share: `meta.group`, or else the media themselves."""
        return str(self.meta.get("group") or "|".join(self.media) or self.id)

    @property
    def media(self) -> list[str]:
        """Paths of the media of the prompt, in order; of the channels of an MRI one each."""
        found = [item[item["type"]] for item in media_items(self.prompt)]
        return [str(path) for one in found for path in (one.values() if isinstance(one, dict) else [one])]


@dataclass(frozen=True)
class Dataset:
    """Samples and what the folder says of itself (`name`, `task`, `split`, `seed`, `n`)."""

    path: Path
    file: Path
    info: dict[str, Any]
    samples: list[Sample]
    digest: str = ""  # sha256 of what was read, so that two results can be known to be about the same questions

    @property
    def name(self) -> str:
        """The folder's own name for itself; else that of the file, or of its folder where the file says nothing."""
        path = self.path.parent if self.path.stem in _SAYS_NOTHING else self.path
        return str(self.info.get("name") or path.stem)


def text_of(message: dict[str, Any]) -> str:
    """The text items of one message, joined."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(i["text"] for i in content if i["type"] == "text").strip()


def media_items(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The media items of a conversation, in order."""
    return [
        item
        for message in messages
        if not isinstance(message["content"], str)
        for item in message["content"]
        if item["type"] in MEDIA_KINDS
    ]


def without_media(sample: Sample) -> Sample:
    """The same question with nothing to look at; its group stays."""
    messages = [
        {**m, "content": [item for item in m["content"] if item["type"] not in MEDIA_KINDS]} for m in sample.messages
    ]
    return replace(sample, messages=messages, meta={**sample.meta, "group": sample.group})


def read_dataset(path: str | Path, media_root: str | Path | None = None) -> Dataset:
    """Opens a dataset folder (`records.jsonl` or one JSON/JSONL file in it), a `.jsonl` or a LLaVA `.json`.

    Media paths are relative to `media_root`, by default the folder of the file.
    Raises FileNotFoundError when there is nothing to read, ValueError when a `.json` file is not a list.
    """
    path = Path(path)
    info_file = path / "dataset.json"
    info = json.loads(info_file.read_text(encoding="utf-8")) if info_file.is_file() else {}
    records = _records_file(path) if path.is_dir() else path
    if not records.is_file():
        raise FileNotFoundError(f"{path}: no such dataset; expected a folder with records.jsonl, a .jsonl or a .json")
    base_dir = Path(media_root) if media_root else records.parent
    samples = [_sample(record, label, base_dir, info) for label, record in _rows(records)]
    digest = hashlib.sha256(records.read_bytes()).hexdigest()
    return Dataset(path=path, file=records, info=info, samples=samples, digest=digest)


def single_questions(sample: Sample) -> list[Sample]:
    """A record of several questions about the same media as one sample per question (LLaVA records, mostly).

    Every question keeps the system turn and the media of the whole record, and none of the earlier answers: they are
    gold text, and showing them would let the model copy.
    """
    pairs = [
        (asked, answered)
        for asked, answered in zip(sample.messages, sample.messages[1:])
        if (asked["role"], answered["role"]) == ("user", "assistant")
    ]
    if sample.problem or "answers" in sample.meta or len(pairs) < 2:
        return [sample]
    system = [message for message in sample.messages if message["role"] == "system"]
    media = media_items(sample.messages)
    return [
        replace(
            sample,
            id=f"{sample.id}#{number}",
            messages=[
                *system,
                {"role": "user", "content": [*media, {"type": "text", "text": text_of(asked)}]},
                answered,
            ],
            meta={"group": sample.group, **sample.meta},
        )
        for number, (asked, answered) in enumerate(pairs)
    ]


def _records_file(folder: Path) -> Path:
    usual = folder / "records.jsonl"
    if usual.is_file():
        return usual
    if (folder / "images.jsonl").is_file():
        raise FileNotFoundError(
            f"{folder}: labelled images, not questions; make them with radio-vlm make-expert-data --images {folder} "
            "--split test --out FOLDER"
        )
    files = sorted(f for f in folder.glob("*.json*") if f.suffix in (".json", ".jsonl") and f.name != "dataset.json")
    if len(files) > 1:
        names = ", ".join(f.name for f in files)
        raise FileNotFoundError(f"{folder}: no records.jsonl and several candidates ({names}); name one of them")
    return files[0] if files else usual


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    """(label for messages, record) pairs; a line that is not JSON gives the error text in place of the record."""
    if file.suffix == ".json":
        try:
            rows = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError as error:  # also what is no UTF-8 text
            raise ValueError(f"{file}: not JSON: {error}") from error
        if not isinstance(rows, list):
            raise ValueError(f"{file}: a LLaVA JSON file holds a list of records, found {type(rows).__name__}")
        yield from ((f"{file.name}[{number}]", row) for number, row in enumerate(rows))
        return
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield f"{file.name}:{number}", json.loads(line)
                except json.JSONDecodeError as error:
                    yield f"{file.name}:{number}", f"not JSON: {error}"


def _sample(record: Any, label: str, base_dir: Path, info: dict[str, Any]) -> Sample:
    source = str(info.get("name") or base_dir.name)
    if not isinstance(record, dict):
        return Sample(label, source, [], problem=record if isinstance(record, str) else "not a JSON object")
    sample_id = str(record.get("id", label))
    source = str(record.get("source", source))
    meta: dict[str, Any] = {}
    try:
        meta = dict(record.get("meta") or {})
        turns = record.get("messages") or record.get("conversations")
        if turns:
            media = _media_lists(record)
            plain = "conversations" in record or (any(media.values()) and isinstance(turns[0].get("content"), str))
            messages = _from_turns(turns, media) if plain else turns
        elif "question" in record:
            kept = {k: record[k] for k in ("kind", "metric", "group", "scoring") if record.get(k) is not None}
            meta |= kept  # also of a record that cannot be used: it counts as wrong where it belongs
            messages, answers, scoring = question_of(record, _media_lists(record))
            meta = {"answers": answers, **meta, "scoring": {**scoring, **meta.get("scoring", {})}}
        else:
            raise ValueError("no messages, conversations or question in the record")
        messages = [_with_absolute_media(message, base_dir) for message in messages]
        asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        if not asked or asked[-1]["role"] != "user" or not asked[-1]["content"]:
            raise ValueError("no user turn asks for the answer")
        if any(not isinstance(message["role"], str) for message in messages):
            raise ValueError("a role is no string")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else str(error)
        return Sample(sample_id, source, [], meta, base_dir, problem=reason)
    return Sample(sample_id, source, messages, meta, base_dir)


def _media_lists(record: dict[str, Any]) -> dict[str, list[str]]:
    lists = {}
    for kind in MEDIA_KINDS:
        value = record.get(f"{kind}s") or record.get(kind) or []
        if kind == "volume" and isinstance(value, (int, float)):  # of a journal
            value = []
        lists[kind] = list(value) if isinstance(value, list) else [value]
    return lists


def _from_turns(turns: list[dict[str, Any]], media: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Turns of plain text: each `<image>`/`<video>` tag of a user turn takes the next file of that kind.

    `<document>` and `<volume>` are tags only where the record lists such: others may say it in words.

    Raises ValueError when tags and files differ in number, or for an unknown speaker.
    """
    speakers = [turn.get("from") or turn.get("role") for turn in turns]
    for speaker in speakers:
        if speaker not in _ROLES:
            raise ValueError(f"unknown speaker {speaker!r}; known: {', '.join(sorted(_ROLES))}")
    texts = [turn["value"] if "value" in turn else turn["content"] for turn in turns]
    media = {kind: paths for kind, paths in media.items() if paths or kind in ("image", "video")}
    asked = "".join(text for text, speaker in zip(texts, speakers) if _ROLES[speaker] == "user")
    for kind, paths in media.items():
        if asked.count(f"<{kind}>") != len(paths):
            raise ValueError(f"{asked.count(f'<{kind}>')} <{kind}> tags but {len(paths)} {kind} files")
    left = {kind: list(paths) for kind, paths in media.items()}
    messages = []
    for text, speaker in zip(texts, speakers):
        role = _ROLES[speaker]
        content: list[dict[str, Any]] = []
        for piece in _TAG.split(text) if role == "user" else [text]:
            if role == "user" and _TAG.fullmatch(piece) and piece[1:-1] in left:
                content.append(item_of(piece[1:-1], left[piece[1:-1]].pop(0)))
            elif piece.strip():
                content.append({"type": "text", "text": piece.strip()})
        messages.append({"role": role, "content": content})
    return messages


def _with_absolute_media(message: dict[str, Any], base_dir: Path) -> dict[str, Any]:
    """Paths become absolute; one that leaves the data folder is refused (a record must not read the user's disk)."""
    if isinstance(message["content"], str):
        return {**message, "content": [{"type": "text", "text": message["content"]}]}
    content = []
    for item in message["content"]:
        kind = item["type"]
        if kind in MEDIA_KINDS:
            # "source": the volume that a picture was taken from, which is what an expert reads
            for key in (kind, "source") if item.get("source") is not None else (kind,):
                path = item[key]
                if kind == "volume" and isinstance(path, dict):
                    found: Any = {channel: _absolute(one, base_dir, kind) for channel, one in path.items() if one}
                else:
                    found = _absolute(path, base_dir, kind)
                item = {**item, key: found}
        elif kind != "text" or not isinstance(item["text"], str):
            raise ValueError(f"content item {item!r:.80} is not one of: text, {', '.join(MEDIA_KINDS)}")
        content.append(item)
    return {**message, "content": content}


def _absolute(path: Any, base_dir: Path, kind: str) -> str:
    """Raises ValueError for a path, or a link in a folder of slices, that leaves the data folder."""
    root = base_dir.resolve()
    found = (base_dir / str(path)).resolve()
    if not found.is_relative_to(root):
        raise ValueError(f"{path}: path leaves the data folder {base_dir}")
    if kind == "volume" and found.is_dir():
        from vlm.media.inside import check_inside

        check_inside(str(found), str(root))
    return str(found)
