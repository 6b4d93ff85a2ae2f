"""Mini MMLongBench-Doc (`yubo2333/MMLongBench-Doc`): a table of questions beside a folder of PDF files."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import HubCopy
from tests.helpers.mini_benchmarks._registry import mini
from tests.helpers.pdfs import page, pdf, write_pages

REPORT, MANUAL = "Independents-Report.pdf", "long-manual.pdf"
ROWS = [
    (REPORT, "What figure is on the last page? ", "3", "[3]", "['Pure-text (Plain-text)']", "Int"),
    (REPORT, "What share is it?", "18.29%", "[3, 1, 3]", "['Chart', 'Table']", "Float"),
    (REPORT, "Which colours are there?", "['red', 'green']", "[1, 2]", "['Figure']", "List"),
    (REPORT, "Who wrote it?", "Not answerable", "[]", "[]", "None"),
    (MANUAL, "What is it called?", "The manual", "[121]", "['Generalized-text (Layout)']", "Str"),
]
MANUAL_PAGES = 121


def write(root: Path) -> None:
    from datasets import Value

    columns = ("doc_id", "question", "answer", "evidence_pages", "evidence_sources", "answer_format")
    types = {REPORT: "Research report / Introduction", MANUAL: "Guidebook"}
    rows = [{**dict(zip(columns, row)), "doc_type": types[row[0]]} for row in ROWS]
    features = dict.fromkeys(("doc_id", "doc_type", *columns[1:]), Value("string"))
    copy = HubCopy(root, "yubo2333/MMLongBench-Doc")
    copy.table(rows, features, split="train")
    write_pages(copy.folder / "documents" / REPORT, 3)
    copy.file(f"documents/{MANUAL}", pdf([page()] * MANUAL_PAGES))


mini("mmlongbench_doc")(write)
mini("mmlongbench_doc_evidence")(write)
