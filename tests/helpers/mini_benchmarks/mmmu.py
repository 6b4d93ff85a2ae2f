"""Mini MMMU (`lmms-lab-encoder/MMMU`): pictures in question and options, out of order, repeated; open questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

CHOICE, OPEN = "multiple-choice", "open"
ROWS = [
    ("Accounting_1", "<image 1> Baxter Company has a relevant range. What is the cost?", "['$6', '$7', '$8']", "B", 1),
    ("Art_Theory_7", "Who painted <image 2> after <image 1>?", "['Monet', \"Manet's pupil\"]", "A", 2),
    ("Biology_3", "Which one shows a cell?", "['<image 1>', '<image 2>', 'neither']", "C", 2),
    ("Electronics_28", "Find V in <image 1>. Use the symbols of <image 1>.", "[]", "8.4", 1),
    ("Pharmacy_9", "How often is it open? <image 1>", "[]", "['24/7', 'always']", 1),
]


@mini("mmmu")
def write(root: Path) -> None:
    from datasets import Image, Value

    text = Value("string")
    features: dict[str, Any] = {"id": text, "question": text, "options": text, "explanation": text}
    features |= {f"image_{number}": Image() for number in range(1, 8)}
    features |= dict.fromkeys(("img_type", "answer", "topic_difficulty", "question_type", "subfield"), text)
    rows = [
        {
            "id": f"validation_{name}",
            "question": question,
            "options": options,
            "explanation": "",
            **{f"image_{n}": picture(10 * place + n) if n <= pictures else None for n in range(1, 8)},
            "img_type": "['Tables']",
            "answer": answer,
            "topic_difficulty": "Medium",
            "question_type": OPEN if options == "[]" else CHOICE,
            "subfield": "Managerial Accounting",
        }
        for place, (name, question, options, answer, pictures) in enumerate(ROWS)
    ]
    HubCopy(root, "lmms-lab-encoder/MMMU").table(rows, features, split="validation")
