"""Chest X-ray reports: the model describes the images of a study, n-gram overlap with the radiologist's own words.

Report collections are not on the hub under a licence of record; the data is read from a folder `report_generation`:
- `annotation.json` in the layout of R2Gen (Chen et al., EMNLP 2020), in which IU X-Ray and MIMIC-CXR are passed around:
  `{"test": [{"id", "image_path": ["…/0.png", "…/1.png"], "report"}, …], …}`, or
- `test.jsonl`, one study a line: `{"id", "images": ["a.png", …] or "image": "a.png", "findings", "impression"}`;
  the reference is `findings` (a `report` instead, if there is one), `impression` is kept and not scored.
Pictures lie in `images/`. A line may name a `group`, such as the patient; else a study is its own.

References are scored as they were written, never rewritten: VILA-M3 also reports scores against references that a
language model had standardised, which are other numbers. The prompt is VILA-M3's. Figures: BLEU-1 to 4 over the corpus
by sacrebleu, and as the COCO caption code counts (`_coco`; tokens by blanks, no Java tokenizer); mean ROUGE-L by
rouge-score and as COCO has it. METEOR and CIDEr are not offered. All of them reward usual phrases and forgive a wrong
side: they do not say whether a report is right. RadGraph F1, CheXbert F1 and GREEN look at findings; they are networks
of a package of their own, and score stored reports afterwards, when the model is out of memory: `pip install radeval`,
`python eval/rescore.py RESULTS.json --metric radgraph_f1,chexbert_f1,green`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eval.aggregates import Aggregate, CorpusBleu, Mean
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.local_files import json_rows, jsonl_rows, media_file
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks._pictures import pictures_or_problem, with_problem
from eval.tasks.benchmark import Benchmark
from eval.tasks.registry import register_task

ANNOTATION, LINES = "annotation.json", "test.jsonl"


@register_task
class ReportGeneration(Benchmark):
    name = "report_generation"
    medical = True
    source = Source("report_generation", split="test")
    prompt = "Describe the image in detail."
    metrics = ("bleu4", "rouge_l", "rouge_l_coco")
    max_new_tokens = 512
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """The studies of the test split, which know the folder of their pictures. Raises FileNotFoundError."""
        folder = cls.source.local_folder(places.root, cls.name)
        file = (
            next((folder / name for name in (ANNOTATION, LINES) if (folder / name).is_file()), None) if folder else None
        )
        if file is None:
            raise FileNotFoundError(
                f"task {cls.name}: needs {ANNOTATION} (as R2Gen has it) or {LINES} in"
                f" {Path(places.root) / cls.source.repo}, and the pictures in images/ beside it"
            )
        for row in json_rows(file, "test") if file.name == ANNOTATION else jsonl_rows(file):
            row["folder"] = file.parent / "images"
            yield row

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        study = str(row["id"])
        listed = next((row[column] for column in ("image_path", "images", "image") if row.get(column)), None)
        if listed is None:
            raise ValueError(f"study {study}: no image_path, images or image")
        names = [listed] if isinstance(listed, str) else list(listed)
        report = row.get("report") or row.get("findings")
        pictures, problem = pictures_or_problem(
            lambda: [store.save(media_file([row["folder"]], name)) for name in names]
        )
        sample = cls.sample(
            study,
            [*pictures, cls.prompt],
            [report] if str(report or "").strip() else [],
            group=str(row.get("group") or study),
            impression=row.get("impression"),
        )
        yield with_problem(sample, problem)

    def aggregates(self) -> dict[str, Aggregate]:
        orders = (4, 1, 2, 3)  # the headline first
        bleu = {f"corpus_bleu{order}": CorpusBleu(order) for order in orders}
        coco = {
            name: CorpusBleu(order, package="pycocoevalcap", name=name)
            for order in orders
            for name in [f"corpus_bleu{order}_coco"]
        }
        return {**bleu, "rouge_l": Mean("rouge_l"), **coco, "rouge_l_coco": Mean("rouge_l_coco")}
