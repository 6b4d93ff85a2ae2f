"""PMC-VQA (Zhang et al., 2023, arXiv 2305.10415): questions on figures of medical papers, four options, accuracy.

Two test sets of the repository `xmcmic/PMC-VQA`, which give different figures: `pmc_vqa` is `test_clean.csv` with
`images.zip` (version 1, checked by hand), `pmc_vqa_2` is `test_2.csv` with `images_2.zip` (version 2, no compound
figures). Columns: Figure_path, Question, Choice A … Choice D; version 1 has the gold text in Answer and its letter in
Answer_label, version 2 the letter in Answer. Choices carry their letter (" A: Green "), which is taken off.

The prompt is that of the authors' MedVInT-TD ("Question: … Choices: A:… The Answer is:"), with blanks between its
parts, which their code glues together. Their evaluation takes the option most SIMILAR to the last token that was
generated, so it always finds one; here an answer is read by the rule of `mcq_accuracy`, and one that cannot be read is
wrong (`unreadable_rate`). Questions about one figure share a group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

from eval.aggregates import Aggregate, Mean, UnreadableRate
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.local_files import csv_rows, media_file, media_folders
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks._pictures import pictures_or_problem, with_problem
from eval.tasks.benchmark import Benchmark
from eval.tasks.registry import register_task

LETTERS = "ABCD"


@register_task
class PMCVQA(Benchmark):
    name = "pmc_vqa"
    medical = True
    source = Source("xmcmic/PMC-VQA", split="test_clean.csv")
    archive: ClassVar[str] = "images.zip"
    folders: ClassVar[tuple[str, ...]] = ("images", "figures")
    """Where the pictures lie once the archive is unpacked, in the copy or by us."""
    prompt = "Question: {question} Choices: {choices} The Answer is:"
    metrics = ("mcq_accuracy",)
    max_new_tokens = 16
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """Rows of the CSV file, which know the folders of their pictures. Raises FileNotFoundError."""
        copy = cls.source.files(places.root, cls.name, [cls.source.split, cls.archive])
        table = copy / cls.source.split
        if not table.is_file():
            raise FileNotFoundError(f"task {cls.name}: no {table.name} in {copy}")
        pictures = media_folders(copy, cls.folders, cls.archive, places.cache_folder / "pmc_vqa")
        for row in csv_rows(table):
            row["folders"] = pictures
            yield row

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        options = [option_text(row[f"Choice {letter}"], letter) for letter in LETTERS]
        gold = str(row["Answer_label"] if "Answer_label" in row else row["Answer"]).strip()
        if gold not in tuple(LETTERS):
            raise ValueError(f"the gold option is {gold!r}, not one of A, B, C, D")
        choices = " ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, options))
        figure = row["Figure_path"]
        picture, problem = pictures_or_problem(lambda: [store.save(media_file(row["folders"], figure))])
        sample = cls.sample(
            row["index"] if "index" in row else f"{cls.name}-{number}",
            [*picture, cls.prompt.format(question=row["Question"].strip(), choices=choices)],
            [gold],
            group=figure,
            scoring={"options": options},
        )
        yield with_problem(sample, problem)

    def aggregates(self) -> dict[str, Aggregate]:
        return {"mcq_accuracy": Mean("mcq_accuracy"), "unreadable_rate": UnreadableRate()}


@register_task
class PMCVQA2(PMCVQA):
    name = "pmc_vqa_2"
    source = Source("xmcmic/PMC-VQA", split="test_2.csv")
    archive = "images_2.zip"
    folders = ("figures", "images_2/figures", "images_2")


def option_text(cell: str, letter: str) -> str:
    """`" A: Green "` → `"Green"`. Raises ValueError for an option without text."""
    text = re.sub(rf"^\s*{letter}\s*:", "", cell).strip()
    if not text:
        raise ValueError(f"option {letter} has no text")
    return text
