"""What public benchmarks share: rows of a hub dataset become samples, one prompt template each, media as files.

A benchmark's file says what the field needs to repeat its number: source and split, prompt, length of answers, metric,
aggregation, frames. Everything else is here.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from eval.data import MEDIA_KINDS, Dataset, Sample
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.base import Row, Task

logger = logging.getLogger(__name__)


class Benchmark(Task):
    """Base of the public benchmarks. `name` is also the key in tables."""

    source: ClassVar[Source]
    prompt: ClassVar[str] = "{question}"
    """The user turn's text; each task says which fields it fills."""
    controls_by_default = False  # they double the cost of benchmarks that have thousands of questions

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.key = cls.name

    @classmethod
    def load(cls, places: DataPlaces, limit: int | None = None) -> Dataset:
        """The benchmark's samples. A row that cannot be used becomes a sample whose `problem` says why.

        Raises FileNotFoundError where the data is neither in a local copy nor to be downloaded.
        """
        store = MediaStore(places.cache_folder / "media")
        digest = hashlib.sha256()
        samples: list[Sample] = []
        for number, row in enumerate(cls.rows(places, limit)):
            for sample in cls._samples_of(row, number, store, places):
                samples.append(sample)
                about = [sample.id, _without_folders(sample.messages), sample.answers, sample.scoring]
                digest.update(json.dumps(about, default=str).encode())
            if limit is not None and len(samples) >= limit:
                break
        if not samples:
            raise ValueError(f"task {cls.name}: no rows in split {cls.source.split} of {cls.source.repo}")
        local = cls.source.local_folder(places.root, cls.name)
        path = local or Path(cls.source.repo)
        return Dataset(path, Path(cls.source.split), cls.about(), samples[:limit], digest.hexdigest())

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """The raw rows; a task that filters rows or reads files of its own overrides this."""
        return cls.source.rows(places.root, cls.name, limit)

    @classmethod
    def _samples_of(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> list[Sample]:
        try:
            return list(cls.samples(row, number, store, places))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError) as error:
            reason = f"missing column {error}" if isinstance(error, KeyError) else str(error)
            logger.debug("%s row %d: %s", cls.name, number, reason)
            return [Sample(f"{cls.name}-{number}", cls.name, [], cls._kinds_if_known(row), problem=reason)]

    @classmethod
    def _kinds_if_known(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Kinds of a row that cannot be used: its failure counts in the sub-scores it belongs to."""
        try:
            return about_kinds(cls.kinds(row))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError):
            return {}

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        """The sub-scores that the questions of a row count in; the first is its `kind`. Empty: there are none.

        Tasks whose kind is not in the row (or which ask several questions a row) give it to `sample` instead.
        """
        return ()

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        """The question or questions of one row. Raises KeyError, ValueError, … for a row that cannot be used."""
        raise NotImplementedError

    @classmethod
    def sample(
        cls,
        sample_id: Any,
        content: Sequence[dict[str, Any] | str],
        answers: Sequence[Any],
        *,
        kind: str = "all",
        kinds: Sequence[str] = (),
        group: str | None = None,
        unscored: str | None = None,
        scoring: dict[str, Any] | None = None,
        **meta: Any,
    ) -> Sample:
        """A sample of one user turn.

        Args:
            content: the items of the turn in order; strings are text.
            kind: the sub-score it counts in. kinds: instead, several of them, the first being the `kind`.
            group: what questions about the same image or video share.
            unscored: why it cannot be scored, if it cannot.
            scoring: keyword arguments of the metrics, e.g. `options`.
            meta: anything else worth keeping.
        """
        items = [{"type": "text", "text": item} if isinstance(item, str) else item for item in content]
        answers = [str(answer) for answer in answers if answer is not None]
        about = {"answers": answers, "kind": kind, "scoring": scoring or {}, **meta}
        about |= about_kinds(kinds)
        about |= {"group": group} if group else {}
        about |= {"unscored": unscored} if unscored else {}
        return Sample(str(sample_id), cls.name, [{"role": "user", "content": items}], about)

    def submission(self, rows: Sequence[Row]) -> tuple[str, str] | None:
        """(file name, content) of what the benchmark's server takes, from the task's rows; None: nothing to send."""
        return None

    @classmethod
    def about(cls) -> dict[str, Any]:
        """What a results file says of the data and of how it is asked."""
        return {
            "name": cls.name,
            "repository": cls.source.repo,
            "config": cls.source.config,
            "split": cls.source.split,
            "revision": cls.source.revision,
            "prompt": cls.prompt,
        }


def _without_folders(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with the names of media for their paths: the same questions have one digest, wherever they lie."""

    def named(item: dict[str, Any]) -> dict[str, Any]:
        kind = item["type"]
        if kind not in MEDIA_KINDS:
            return item
        found = item[kind]
        names = {one: Path(found[one]).name for one in found} if isinstance(found, dict) else Path(found).name
        return {**item, kind: names}

    return [{**message, "content": [named(item) for item in message["content"]]} for message in messages]


def about_kinds(kinds: Sequence[str]) -> dict[str, Any]:
    """`kinds` as a sample's meta holds them."""
    return {"kind": kinds[0], "kinds": list(kinds)} if kinds else {}


def pictures_group(*paths: str) -> str | None:
    """Names the pictures of a question by their content, for benchmarks that give them no id; None without any.

    Files of the media store are named by their hash, so equal pictures share a group on every machine.
    """
    return "+".join(dict.fromkeys(Path(path).stem[:16] for path in paths)) or None


def image(path: str) -> dict[str, Any]:
    """A picture of a user turn."""
    return {"type": "image", "image": path}


def video(path: str, **options: Any) -> dict[str, Any]:
    """A video of a user turn; options: start, end, fps, max_frames."""
    return {"type": "video", "video": path, **options}


def lettered(options: Sequence[str], form: str = "{letter}. {text}") -> str:
    """Options one a line: `A. a red car`."""
    return "\n".join(form.format(letter=chr(65 + place), text=text) for place, text in enumerate(options))
