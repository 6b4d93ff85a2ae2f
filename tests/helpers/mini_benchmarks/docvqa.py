"""Mini DocVQA (`lmms-lab-encoder/DocVQA`): its two configurations, the test splits without answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

REPO = "lmms-lab-encoder/DocVQA"
PAGES = [
    (1, "What is the ‘actual’ value per 1000, during the year 1975?", ["0.28"], ["figure/diagram"]),
    (1, "What is name of university?", ["university of california", "University of California"], ["layout", "form"]),
    (2, "What is the name of the company?", ["itc limited", "ITC"], ["form"]),
    (3, "To whom is the letter addressed?", ["Dr. Smith"], ["handwritten", "form"]),
]
INFOGRAPHICS = [
    (11, "Which social platform has heavy female audience?", ["pinterest"], ["Image span"]),
    (11, "What percent do not use it?", ["40%", "40 %"], ["Question span", "Image span"]),
    (12, "How many icons are red?", ["3", "three"], ["Non-extractive"]),
]


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


def docvqa_rows(public: bool) -> list[dict[str, Any]]:
    return [
        {
            "questionId": str((49153 if public else 57344) + number),
            "question": question,
            "question_types": types if public else None,
            "image": picture(page),
            "docId": 14465 + page,
            "ucsf_document_id": "pybv0228",
            "ucsf_document_page_no": str(page),
            "answers": answers if public else None,
            "data_split": "val" if public else "test",
        }
        for number, (page, question, answers, types) in enumerate(PAGES)
    ]


def infovqa_features() -> dict[str, Any]:
    from datasets import Image, Value

    text = Value("string")
    return {
        "questionId": text,
        "question": text,
        "answers": [text],
        "answer_type": [text],
        "image": Image(),
        "image_url": text,
        "operation/reasoning": [text],
        "ocr": text,
        "data_split": text,
    }


def infovqa_rows(public: bool) -> list[dict[str, Any]]:
    return [
        {
            "questionId": str((98313 if public else 65718) + number),
            "question": question,
            "answers": answers if public else None,
            "answer_type": types if public else None,
            "image": picture(page),
            "image_url": f"https://example.org/{page}.jpeg",
            "operation/reasoning": ["Counting"] if types == ["Non-extractive"] else [],
            "ocr": '{"PAGE": []}',
            "data_split": "val" if public else "test",
        }
        for number, (page, question, answers, types) in enumerate(INFOGRAPHICS)
    ]


@mini("docvqa")
def write_docvqa(root: Path) -> None:
    HubCopy(root, REPO).table(docvqa_rows(True), docvqa_features(), split="validation", config="DocVQA", shards=2)


@mini("docvqa_test")
def write_docvqa_test(root: Path) -> None:
    HubCopy(root, REPO).table(docvqa_rows(False), docvqa_features(), split="test", config="DocVQA")


@mini("infovqa")
def write_infovqa(root: Path) -> None:
    HubCopy(root, REPO).table(infovqa_rows(True), infovqa_features(), split="validation", config="InfographicVQA")


@mini("infovqa_test")
def write_infovqa_test(root: Path) -> None:
    HubCopy(root, REPO).table(infovqa_rows(False), infovqa_features(), split="test", config="InfographicVQA")
