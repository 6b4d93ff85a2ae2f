"""One page of all watched answers: pictures, question, reference, and the answers of all steps side by side.

Self-contained (pictures are inside), so it can be sent and kept; rewritten as a whole each time.
"""

import os
from html import escape
from pathlib import Path

from training.watch.pictures import data_uri
from training.watch.questions import Question

STYLE = """
:root { --paper: #fbfaf7; --panel: #fff; --ink: #1d2023; --soft: #5f656b; --line: #e5e2db; --right: #23705c; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #121416; --panel: #191c1f; --ink: #e9e7e2; --soft: #a7aaad; --line: #2b2f33; --right: #6cc3a6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 "Inter", "Segoe UI", system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font: 500 32px/1.2 Charter, Georgia, serif; margin: 0 0 4px; }
.soft { color: var(--soft); }
article { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 24px; }
.pictures { display: flex; gap: 8px; overflow-x: auto; margin: 10px 0; }
.pictures img { height: 180px; width: auto; border-radius: 4px; image-rendering: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13.5px/1.45 ui-monospace, Menlo, Consolas, monospace;
  margin: 4px 0; }
.label { font-size: 12px; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); }
.steps { display: flex; gap: 10px; overflow-x: auto; margin-top: 12px; padding-bottom: 6px; }
.step { flex: 0 0 210px; border: 1px solid var(--line); border-radius: 8px; padding: 8px 10px; }
.step.right { border-color: var(--right); box-shadow: inset 0 3px 0 var(--right); }
"""


def write_page(path: Path, title: str, questions: list[Question], records: list[dict]) -> None:
    """Write the page; `records`: contents of the step files, in order. Answers equal to the reference are marked."""
    answers = {record["step"]: {row["id"]: row for row in record["samples"]} for record in records}
    body = "".join(_article(question, answers) for question in questions)
    steps = ", ".join(str(step) for step in answers)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}: predictions</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style><main>'
        f'<h1>{escape(title)}: what the model answers</h1><p class="soft">Greedy answers after steps {steps}.</p>'
        f"{body}</main></html>\n"
    )
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, path)


def _article(question: Question, answers: dict[int, dict[str, dict]]) -> str:
    pictures = "".join(f'<img alt="" src="{data_uri(picture)}">' for picture in question.pictures)
    cards = "".join(_card(step, rows[question.id], question) for step, rows in answers.items() if question.id in rows)
    shown = f'<div class="pictures">{pictures}</div>' if pictures else ""
    return (
        f'<article><div class="soft">{escape(question.source)} · {escape(question.id)}</div>{shown}'
        f'<div class="label">question</div><pre>{escape(question.question)}</pre>'
        f'<div class="label">reference</div><pre>{escape(question.reference)}</pre>'
        f'<div class="steps">{cards}</div></article>'
    )


def _card(step: int, row: dict, question: Question) -> str:
    right = " right" if row["answer"].strip() == question.reference.strip() else ""
    cut = "" if row["stopped"] else '<span class="soft"> … cut</span>'
    return (
        f'<div class="step{right}"><div class="label">step {step}</div><pre>{escape(row["answer"])}</pre>{cut}</div>'
    )
