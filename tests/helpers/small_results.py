"""Results files made of a few scores: the rows are written by hand, the figures come from the code of a run."""

import json
from pathlib import Path

from eval.recorded import recorded_task
from eval.results import write_json

CLOCK = {
    "requests": 20, "prompt_tokens": 4000, "media_tokens": 3000, "new_tokens": 60, "encode_seconds": 1.0,
    "prefill_seconds": 2.0, "generate_seconds": 3.0, "seconds": 3.5,
}  # fmt: skip


def row(name: str, score: float | None, task: str = "mine", **changes) -> dict:
    """An answer that is right ("yes"), wrong ("no") or partial ("ye")."""
    output = {1.0: "yes", 0.0: "no"}.get(score, "ye")
    return {
        "id": name, "task": task, "kind": "all", "group": name, "control": None, "question": f"Is it {name}?",
        "media": [], "prompt": "<|user|>…", "prompt_tokens": 20, "media_tokens": 0, "input_hash": f"hash of {name}",
        "output": output, "new_tokens": 1, "stopped": True, "seconds": 0.1, "answers": ["yes"], "scoring": {},
        "score": score, "scores": {"exact_match": score, "anls": score}, "error": None, **changes,
    }  # fmt: skip


def results(rows: list[dict], model: str = "models/one", about: dict | None = None, **provenance) -> dict:
    """The contents of a results file; `about` is said of every task."""
    keys = dict.fromkeys(row["task"] for row in rows)
    metrics = {key: list(next(r["scores"] for r in rows if r["task"] == key)) for key in keys}
    tasks = {
        key: {"task": "dataset", "metrics": metrics[key], "max_new_tokens": 8, "data": {"sha256": "d"}}
        | CLOCK | (about or {})
        for key in keys
    }  # fmt: skip
    of_task = {key: [r for r in rows if r["task"] == key] for key in keys}
    return {
        "format": 1,
        "model": model,
        "provenance": {"seed": 0, "blind": False, "decoding": {"do_sample": False}, "tasks": tasks, **provenance},
        "tasks": {key: recorded_task(key, tasks[key], of_task[key]).figures(of_task[key]) for key in keys},
        "samples": rows,
    }


def write(path: Path, rows: list[dict], **options) -> Path:
    write_json(results(rows, **options), path)
    return path


def read(path: Path) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))
