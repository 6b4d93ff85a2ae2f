"""What the multiple-choice video benchmarks share: videos out of archives, options, letters, and how they are scored.

Frames: the model's processor decides (its `max_frames`, `fps`), or `--max-frames` and `--fps` of the command line; the
figures of two models mean the same only with the numbers of frames beside them. Headline is our own rule for option
letters, beside it lmms-eval's rule for the benchmark and the share of unreadable answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, ClassVar

from eval.aggregates import Aggregate, Mean, UnreadableRate
from eval.controls import FRAMES_SHUFFLED
from eval.data import Sample
from eval.media_store import MediaStore
from eval.sources import DataPlaces
from eval.tasks.benchmark import Benchmark, video
from eval.video_archives import VIDEO_SUFFIXES, ArchivedFiles

FILE, PROBLEM = "video file", "video problem"  # added to a row, under names that no column has
_CANNOT_BE_USED = (KeyError, ValueError, TypeError, AttributeError, OSError)


class VideoChoice(Benchmark):
    """Base of these benchmarks: a subclass says what its columns mean in `choice`."""

    archives: ClassVar[tuple[str, ...]] = ()
    """Patterns of the names of the archives that hold the videos."""
    video_column: ClassVar[str]
    """The column with the video's file name, with or without suffix."""
    metrics = ("mcq_accuracy", "mcq_accuracy.lmms_eval.extract_mcq_answer")
    max_new_tokens = 16
    controls = (FRAMES_SHUFFLED,)

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """The rows with the path of their video, or with the reason why there is none."""
        videos = ArchivedFiles(cls.source, places, cls.name, cls.archives, VIDEO_SUFFIXES)
        for row in cls.table(places, limit):
            yield row | located(videos, row, cls.video_column, FILE, PROBLEM)

    @classmethod
    def table(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """The rows as they are."""
        return cls.source.rows(places.root, cls.name, limit)

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        sample = cls.choice(row, number)
        yield replace(sample, problem=row[PROBLEM]) if row.get(PROBLEM) else sample

    @classmethod
    def choice(cls, row: dict[str, Any], number: int) -> Sample:
        """The question of one row. Raises KeyError, ValueError, … for a row that cannot be used."""
        raise NotImplementedError

    @classmethod
    def asked(
        cls, row: dict[str, Any], sample_id: Any, text: str, answer: Any, options: Sequence[Any], **about: Any
    ) -> Sample:
        """A sample: the video, `text`, the gold letter, and the option texts for the metrics.

        Args:
            answer: the letter, or the text of the option. Raises ValueError where it is neither.
            about: as for `sample`; by default questions about one file share a group.
        """
        options = [str(option) for option in options]
        letter = gold_letter(answer, options)
        about = {"kinds": cls.kinds(row), "group": video_id(row[cls.video_column]), **about}
        return cls.sample(sample_id, cls.shown(row, text), [letter], scoring={"options": options}, **about)

    @classmethod
    def shown(cls, row: dict[str, Any], text: str) -> list[dict[str, Any] | str]:
        """The items of the user turn: the video, if there is one, and the text."""
        return [video(row[FILE]), text] if row.get(FILE) else [text]

    def aggregates(self) -> dict[str, Aggregate]:
        means: list[Aggregate] = [Mean(name) for name in self.metrics]
        return {one.name: one for one in [*means, UnreadableRate()]}


def located(files: ArchivedFiles, row: dict[str, Any], column: str, found: str, problem: str) -> dict[str, Any]:
    """`{found: path}` of the file that `row[column]` names, or `{problem: why}`: one file costs one question."""
    try:
        return {found: files.find(str(row[column]))}
    except _CANNOT_BE_USED as error:
        return {problem: f"missing column {error}" if isinstance(error, KeyError) else str(error)}


def video_id(name: Any) -> str:
    """A video's name without the suffix, which some rows of a table have and others lack."""
    return PurePosixPath(str(name)).stem if str(name).endswith(VIDEO_SUFFIXES) else str(name)


def gold_letter(answer: Any, options: Sequence[str]) -> str:
    """The letter of the right option, given as letter or as text. Raises ValueError where it is neither."""
    letters = [chr(65 + place) for place in range(len(options))]
    answer = str(answer).strip()
    if answer in letters:
        return answer
    if answer in options:
        return letters[options.index(answer)]
    raise ValueError(f"gold answer {answer!r} is none of the options {', '.join(letters) or '(none)'}")


def without_letter(option: str) -> str:
    """`A. Apples.` → `Apples.`: the option's text where a column has the letters in it."""
    return option[2:].strip() if option[:1].isupper() and option[1:2] == "." else option.strip()
