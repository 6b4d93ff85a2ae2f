"""SLAKE (Liu et al., ISBI 2021): questions on CT, MRI and X-ray images, in English and Chinese, CC BY 4.0.

Repository, language filter, prompts, limit and the rule of `accuracy_slake` are those of lmms-eval's `slake_en` and
`slake_zh`: the whole answer must be equal after its normalisation ("X-ray" = "xray", "true" = "yes"). lmms-eval's open,
closed, modality and content figures are the kinds. VILA-M3's SLAKE figure is `exact_match` (all English questions).

Read from `test.json` beside `imgs.zip` or `imgs/`, as the hub repository and the original release have them: img_id,
img_name (`xmlab102/source.jpg`), question, answer, q_lang, location, modality, answer_type, base_type, content_type,
triple, qid. The English test set is said to have 1,061 questions; that number was not counted here.
Questions about one image share a group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from eval.aggregates import Aggregate, Mean
from eval.data import Sample
from eval.local_files import json_rows, media_file, media_folders
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.medical_vqa import MedicalVQA
from eval.tasks.registry import register_task

FILE, ARCHIVE = "test.json", "imgs.zip"


@register_task
class Slake(MedicalVQA):
    name = "slake"
    source = Source("BoKelvin/SLAKE", split="test")
    language: ClassVar[str] = "en"
    metrics = (*MedicalVQA.metrics, "exact_match_closed.slake")
    for_all = ("exact_match_closed", "exact_match_closed.slake")
    figures_by_kind = ("accuracy_slake", "closed_accuracy", "open_recall")
    columns = (*MedicalVQA.columns, "modality", "location")

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """Rows of the task's language, each with the folders of its picture. Raises FileNotFoundError."""
        folder = cls.source.files(places.root, cls.name, [FILE, ARCHIVE])
        if not (folder / FILE).is_file():
            raise FileNotFoundError(f"task {cls.name}: no {FILE} in {folder}")
        pictures = media_folders(folder, ["imgs"], ARCHIVE, places.cache_folder / "slake")
        for row in json_rows(folder / FILE):
            language = str(row.get("q_lang", cls.language)).strip().lower()
            if language == cls.language:
                row["folders"] = pictures
                yield row

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        question, name = row["question"], row["img_name"]
        yield cls.question(
            row["qid"],
            lambda: store.save(media_file(row["folders"], name)),
            question,
            row["answer"],
            answer_type=row.get("answer_type"),
            kinds=kinds_of(row),
            group=name,
            modality=str(row.get("modality") or "").strip().lower() or None,
            location=row.get("location"),
        )

    def aggregates(self) -> dict[str, Aggregate]:
        return {"accuracy_slake": Mean("exact_match_closed.slake", "accuracy_slake"), **super().aggregates()}

    @classmethod
    def about(cls) -> dict[str, Any]:
        return {**super().about(), "language": cls.language}


@register_task
class SlakeChinese(Slake):
    name = "slake_zh"
    language = "zh"
    prompt = "{question}\n请用一个词或短语回答问题。"


def kinds_of(row: dict[str, Any]) -> list[str]:
    """What lmms-eval has figures of: `["organ", "answer type closed", "modality ct"]`, in lower case."""
    columns = {"content_type": "", "answer_type": "answer type ", "modality": "modality "}
    values = {prefix: str(row.get(column) or "").strip().lower() for column, prefix in columns.items()}
    return [prefix + value for prefix, value in values.items() if value]
