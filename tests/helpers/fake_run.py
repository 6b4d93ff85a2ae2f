"""A finished run folder without training: real synthetic data, real evaluation code, an oracle that errs on purpose.

The report and the table are tested on it, and it is what their look was worked out on.
"""

import json
import math
import random
import re
from pathlib import Path

from eval.backends.radio import RadioBackend
from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.results import write_json
from eval.tasks.base import Options
from tests.helpers.fake_vlm import FakeModel, FakeProcessor
from training.data.synthetic import documents, medical, videos

WRITERS = {"documents": documents.write, "videos": videos.write, "medical": medical.write}
STAGES = {"stage1": (0.02, 60, 4.2, 2.9), "stage2": (0.9, 400, 2.9, 0.35), "stage3": (0.93, 120, 1.1, 0.3)}
STAGES["stage4"] = (0.92, 150, 0.9, 0.2)
PARTS = ("vision/matrices", "projector/matrices", "text/matrices", "text/other")


class OracleProcessor(FakeProcessor):
    """Shows the model the paths of files instead of their contents."""

    def encode(self, messages, **kwargs):
        def item(part):
            if part["type"] == "text":
                return part
            source = part[part["type"]]
            return {"type": "text", "text": f"⟨{source if isinstance(source, str) else 'frames'}⟩"}

        shown = [{**m, "content": [item(part) for part in m["content"]]} for m in messages]
        return super().encode(shown, **kwargs)


def oracle(answers, skill, seed):
    """Answers by the file shown, right with probability `skill`; lesion questions through the expert."""
    everything = sorted(set(answers.values()))

    def read(picture, text):
        rng = random.Random(f"{seed}{re.sub('⟨.*/', '⟨', text)}")  # the same wherever the run lies
        file = re.search(r"⟨(.*?)⟩", text)[1]
        report = re.search(r"\|(\d) lesions?(?:; largest: (\w+), (\d+) mm)?\n(\w+)\?", text)
        if rng.random() > skill:
            return rng.choice(everything)
        if report:
            return {"Number": report[1], "Side": report[2], "Size": report[3]}.get(report[4]) or "none"
        if "Experts:" in text and re.search(r"(Side|Size|Number)\?", text):
            return "<LESIONS()>"
        return answers.get(file, rng.choice(everything))

    return read


def write_run(folder: Path, n: int = 24, stages: dict = STAGES) -> Path:
    """Writes data, evaluations and training logs of a run below `folder`."""
    answers = {}
    for task, write in WRITERS.items():
        data = folder / "data" / f"{task}-test"
        write(data, "test", 1, n)
        for line in (data / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            media = next(item for item in record["messages"][0]["content"] if item["type"] != "text")
            answers[str((data / media[media["type"]]).resolve())] = record["meta"]["answers"][0]
    for stage, (skill, steps, high, low) in stages.items():
        for name, tasks in {"documents": ["documents"], "videos-medical": ["videos", "medical"]}.items():
            jobs = [job_for_data(folder / "data" / f"{task}-test") for task in tasks]
            results = evaluate(
                RadioBackend(FakeModel(oracle(answers, skill, stage)), OracleProcessor()), jobs, Options(seed=1),
                model_name=str(folder / stage), command=["eval/run.py"], progress=False,
            )  # fmt: skip
            write_json(results, folder / "eval" / f"{stage}-{name}.json")
        _training_files(folder / stage, steps, high, low)
    return folder


def _training_files(folder: Path, steps: int, high: float, low: float) -> None:
    rng = random.Random(folder.name)
    history = [
        {"step": step, "loss": (low + (high - low) * math.exp(-5 * step / steps)) * rng.uniform(0.8, 1.25)}
        for step in range(1, steps + 1)
    ]
    frozen = folder.name == "stage1"
    groups = [
        {"group": group, "tensors": 12, "parameters": 40_000 * (i + 1), "trainable": not frozen or "projector" in group}
        | {"optimizer": "adamw", "lr": 2e-3 / (i + 1), "weight_decay": 0.01}
        for i, group in enumerate(PARTS)
    ]
    speed = {"steps": steps, "seconds": steps * 0.4, "samples_per_second": 81.3, "tokens_per_second": 5210.0}
    write_json({"log_history": history}, folder / "trainer_state.json")
    write_json({"before": {"loss": high}, "after": {"loss": low}, "change": -0.3}, folder / "heldout.json")
    write_json(groups, folder / "trainable.json")
    write_json(speed | {"processes": 2, "peak_memory_mb": 910}, folder / "throughput.json")
