"""EgoSchema's whole set of 5,031 questions, whose answers are known to the benchmark's server only.

As `egoschema` (lmms-eval's task `egoschema`), not scored here: a file for the server is written beside the results,
`{video_idx: number of the option}` with -1 for an answer that cannot be read; send it with
`curl -X POST -H "Content-Type: application/json" -d @FILE https://validation-server.onrender.com/api/upload/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from eval.data import Sample
from eval.metrics import get_metric
from eval.scoring import final_answer
from eval.sources import Source
from eval.tasks._video_choice import without_letter
from eval.tasks.base import Row
from eval.tasks.egoschema import EgoSchema
from eval.tasks.registry import register_task

UNREADABLE = -1


@register_task
class EgoSchemaFull(EgoSchema):
    name = "egoschema_full"
    source = Source("lmms-eval/egoschema", split="test", config="GENERATION")
    controls = ()  # nothing to compare

    @classmethod
    def choice(cls, row: dict[str, Any], number: int) -> Sample:
        text = cls.prompt.format(question=row["question"], options="\n".join(row["option"]))
        return cls.sample(
            row["question_idx"],
            cls.shown(row, text),
            [],
            group=str(row["video_idx"]),
            unscored="the answers are not public: send the submission file to the benchmark's server",
            scoring={"options": [without_letter(option) for option in row["option"]]},
        )

    def submission(self, rows: Sequence[Row]) -> tuple[str, str]:
        asked = [row for row in rows if row["scoring"].get("options")]  # the others are broken rows of the table
        return "egoschema.json", json.dumps({row["group"]: number_of(row) for row in asked}, indent=1)


def number_of(row: Row) -> int:
    """The option that an answer names, from 0; -1 where it names none."""
    letter = get_metric("mcq_option_extraction")(final_answer(row["output"] or ""), row["scoring"]["options"])
    return ord(letter) - 65 if letter else UNREADABLE
