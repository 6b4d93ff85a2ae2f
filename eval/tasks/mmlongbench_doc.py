"""MMLongBench-Doc (Ma et al., NeurIPS 2024): questions on PDF documents of dozens of pages, some without an answer.

`mmlongbench_doc` shows the whole document, at most 120 pages as VLMEvalKit does: finding the page is what the benchmark
is about. `mmlongbench_doc_evidence` shows the gold evidence pages alone, as lmms-eval 0.7.3 does: easier, cheaper, and
no picture at all where a question has none. The two must not be compared, hence two names.

Repository, prompt, limit, 144 dpi and scores are those of lmms-eval: accuracy and the F1 of answering what can be
answered. VLMEvalKit (and the paper) let a GPT model shorten each response before it is scored, and ask differently.
Pages are pictures without page labels, as in both harnesses. Sub-scores are the paper's: evidence source, number of
evidence pages, type of document; and the format of the answer. Groups are documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval.aggregates import Aggregate, AnswerableF1, Mean
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.literal_list import literal_list
from eval.media_store import MediaStore
from eval.metrics.mmlongbench_doc import is_answerable
from eval.sources import DataPlaces, Source
from eval.tasks.benchmark import Benchmark
from eval.tasks.registry import register_task

DPI = 144
MAX_PAGES = 120


class LongDocuments(Benchmark):
    """What the two ways of showing a document share."""

    source = Source("yubo2333/MMLongBench-Doc", split="train")
    prompt = (
        "{question}\nAnswer with a single word or phrase."
        " If the answer is not in the document, answer 'Not answerable'."
    )
    metrics = ("mmlongbench_doc",)
    max_new_tokens = 1024
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def pages(cls, path: str, row: dict[str, Any]) -> list[int] | str | None:
        """The pages to show, from 1: a list or a range; None: all. An empty list: no document."""
        raise NotImplementedError

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        pages, sources = listed(row, "evidence_pages"), listed(row, "evidence_sources")
        answerable = row["answer"] is None or is_answerable(str(row["answer"]))
        where = [] if answerable else ["unanswerable"]
        where += ["single-page"] if len(pages) == 1 else ["cross-page"] if answerable else []
        return [f"answer: {row['answer_format']}", *where, *map(str, sources), str(row["doc_type"])]

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        path = document_file(cls.source, cls.name, places.root, row["doc_id"])
        pages = cls.pages(path, row)
        document = {"type": "document", "document": path, "dpi": DPI, "labels": False}
        document |= {} if pages is None else {"pages": pages}
        text = cls.prompt.format(question=row["question"].strip())
        yield cls.sample(
            f"train_{number}",
            [text] if pages == [] else [document, text],
            [] if row["answer"] is None else [row["answer"]],
            kinds=cls.kinds(row),
            group=row["doc_id"],
            scoring={"answer_format": row["answer_format"]},
        )

    def aggregates(self) -> dict[str, Aggregate]:
        return {"accuracy": Mean("mmlongbench_doc", "accuracy"), "f1": AnswerableF1("mmlongbench_doc", "f1")}

    @classmethod
    def about(cls) -> dict[str, Any]:
        return {**super().about(), "dpi": DPI}


@register_task
class MMLongBenchDoc(LongDocuments):
    name = "mmlongbench_doc"

    @classmethod
    def pages(cls, path: str, row: dict[str, Any]) -> list[int] | str | None:
        return f"1-{MAX_PAGES}" if number_of_pages(path) > MAX_PAGES else None

    @classmethod
    def about(cls) -> dict[str, Any]:
        return {**super().about(), "pages": f"the first {MAX_PAGES}"}


@register_task
class MMLongBenchDocEvidence(LongDocuments):
    name = "mmlongbench_doc_evidence"

    @classmethod
    def pages(cls, path: str, row: dict[str, Any]) -> list[int] | str | None:
        return list(dict.fromkeys(int(page) for page in listed(row, "evidence_pages")))

    @classmethod
    def about(cls) -> dict[str, Any]:
        return {**super().about(), "pages": "the evidence pages"}


def listed(row: dict[str, Any], column: str) -> list[Any]:
    """A column that keeps a list's text in a string. Raises ValueError for anything else."""
    return literal_list(row[column], f"{column} is")


@lru_cache(maxsize=1024)
def document_file(source: Source, task: str, root: str | Path, doc_id: str) -> str:
    """The PDF of a document, in the local copy or downloaded alone. Raises ValueError for one that is not there."""
    if not doc_id or Path(doc_id).name != doc_id:
        raise ValueError(f"doc_id {doc_id!r} is no file name")
    path = source.files(root, task, [f"documents/{doc_id}"]) / "documents" / doc_id
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return str(path.resolve())


@lru_cache(maxsize=1024)
def number_of_pages(path: str) -> int:
    """Pages of a PDF. Raises ValueError for one that cannot be opened."""
    from vlm.errors import SampleError
    from vlm.media.pages import open_document

    try:
        return len(open_document(path))
    except SampleError as error:
        raise ValueError(str(error)) from error
