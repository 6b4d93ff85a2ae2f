"""Mini DocVQA (`lmms-lab/DocVQA`): configurations DocVQA and InfographicVQA, the test split without answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

REPO = "lmms-lab/DocVQA"


def docvqa_row(number: int, question: str, answers: list[str] | None, page: int) -> dict[str, Any]:
    return {
        "questionId": str(49153 + number),
        "question": question,
        "question_types": ["handwritten", "form"],
        "image": picture(page),
        "docId": 14465 + page,
        "ucsf_document_id": "pybv0228",
        "ucsf_document_page_no": str(page),
        "answers": answers,
        "data_split": "val" if answers else "test",
    }


def docvqa_features() -> dict[str, Any]:
    from datasets import Image, Value

    text = Value("string")
    return {
        "questionId": text,
        "question": text,
        "question_types": [text],
        "image": Image(),
        "docId": Value("int64"),
        "ucsf_document_id": text,
        "ucsf_document_page_no": text,
        "answers": [text],
        "data_split": text,
    }


@mini("docvqa")
def write_docvqa(root: Path) -> None:
    rows = [
        docvqa_row(0, "What is the ‘actual’ value per 1000, during the year 1975?", ["0.28"], page=1),
        docvqa_row(1, "What is name of university?", ["university of california", "University of California"], page=1),
        docvqa_row(2, "What is the name of the company?", ["itc limited", "ITC"], page=2),
        docvqa_row(3, "To whom is the letter addressed?", ["Dr. Smith"], page=3),
    ]
    HubCopy(root, REPO).table(rows, docvqa_features(), split="validation", config="DocVQA")
