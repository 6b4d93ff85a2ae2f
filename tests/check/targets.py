"""A number the project promises: name, target, what was measured, and the command that measured it."""

import json
import operator
from dataclasses import asdict, dataclass
from pathlib import Path

COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


@dataclass
class Number:
    """One row of runs/check/numbers.json. `target` is like ">= 0.9"; empty: the figure is only reported."""

    name: str
    target: str
    value: float
    command: str
    ok: bool | None = None

    def __post_init__(self) -> None:
        if self.target:
            sign, bound = self.target.split()
            self.ok = bool(COMPARE[sign](self.value, float(bound)))


def demo_numbers(results: dict, command: str) -> list[Number]:
    """The promises of the main job, read from one demo's results.json."""
    prefix = f"seed {results['seed']}: "
    stage3, stage4 = results["stages"]["stage3"], results["stages"]["stage4"]
    rows = [("wall seconds", "<= 900", results["wall_seconds"])]

    documents = stage4["documents"]
    for kind, figures in documents["kinds"].items():
        exchanged = figures["images_exchanged"]
        if kind == "receipt":
            rows.append((f"documents {kind} exact match", ">= 0.9", figures["exact_match"]))
            rows.append((f"documents {kind} images exchanged", "<= 0.1", exchanged))
        else:
            rows.append((f"documents {kind} exact match", ">= 0.5", figures["exact_match"]))
            rows.append(
                (f"documents {kind} exchanged / exact match", "<= 0.2", exchanged / max(figures["exact_match"], 1e-9))
            )
        rows.append((f"documents {kind} questions", ">= 50", figures["n"]))
    videos, medical = stage4["videos"], stage4["medical"]
    rows.append(("videos direction accuracy", ">= 0.9", videos["accuracy"]))
    rows.append(("videos direction, frames shuffled", "<= 0.65", videos["controls"]["frames_shuffled"]))
    rows.append(("videos questions", ">= 200", videos["n"]))
    rows.append(("medical questions", ">= 200", medical["n"]))
    rows += [(f"medical {name}", target, value) for name, target, value in medical_numbers(medical)]
    rows.append(
        ("documents stage 4 minus stage 3", ">= -0.05", documents["exact_match"] - stage3["documents"]["exact_match"])
    )
    rows.append(("videos stage 4 minus stage 3", ">= -0.05", videos["accuracy"] - stage3["videos"]["accuracy"]))
    return [Number(prefix + name, target, round(float(value), 4), command) for name, target, value in rows]


def medical_numbers(medical: dict) -> list[tuple[str, str, float]]:
    """The promises of medical-expert tuning: (name, target, value) of the figures of one evaluation."""
    withheld, wrong = (medical["controls"][name] for name in ("expert_withheld", "expert_wrong"))
    return [
        ("accuracy with expert", ">= 0.95", medical["accuracy"]),
        ("accuracy without expert minus with", "<= -0.2", withheld - medical["accuracy"]),
        ("accuracy with a wrong expert minus with", "< 0", wrong - medical["accuracy"]),
        ("trigger precision", ">= 0.98", medical["trigger_precision"]),
        ("trigger recall", ">= 0.98", medical["trigger_recall"]),
        ("trigger argument accuracy", ">= 0.98", medical["trigger_argument_accuracy"]),
        ("false triggers on other modalities", "<= 0.02", medical["false_trigger_rate_other_modality"]),
    ]


def write(numbers: list[Number], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(number) for number in numbers], indent=1))


def table(numbers: list[Number]) -> str:
    mark = {True: "ok", False: "MISSED", None: ""}
    width = max((len(number.name) for number in numbers), default=0)
    return "\n".join(f"{n.name:<{width}}  {n.value:>10.4g}  {n.target:<9} {mark[n.ok]}" for n in numbers)
