"""eval/README.md names every public benchmark and every metric, and no others."""

import re
from pathlib import Path

from eval.metrics import metrics
from eval.tasks import get_task, tasks
from eval.tasks.benchmark import Benchmark

PAGE = (Path(__file__).resolve().parents[2] / "eval/README.md").read_text()


def first_column(heading: str) -> set[str]:
    table = PAGE.split(heading, 1)[1].split("\n\n", 1)[0]
    return {name for line in table.splitlines() for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])}


def test_every_benchmark_is_in_the_table():
    known = {name for name in tasks if issubclass(get_task(name), Benchmark)}
    assert first_column("| task | data |") == known


def test_every_metric_is_in_the_table():
    named = first_column("| metric | the rule of |")
    named |= {f"exact_match_closed{name}" for name in named if name.startswith(".")} | {"bleu2", "bleu3"}
    plain = {name for name in metrics if not name.startswith("mcq_")} | {"mcq_accuracy"}
    assert {name for name in named if not name.startswith(".")} == plain
