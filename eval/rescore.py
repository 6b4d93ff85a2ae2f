"""Entry script: `python eval/rescore.py RESULTS.json --metric anls,token_f1` scores stored answers by other metrics.

No model is needed. Figures and intervals come from the code of a run; what else a results file holds stays as it is.
The new file says which one it was made from.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # started as a script, Python puts eval/ itself there

if TYPE_CHECKING:
    from eval.results_file import Result

EPILOG = """examples:
  python eval/rescore.py results.json --metric anls,token_f1
  python eval/rescore.py results.json --task mmmu --metric mcq_accuracy --set extractor=mmmu.parse_multi_choice_response
"""


def rescore(
    result: Result, metrics: Sequence[str], settings: Mapping[str, Any] = {}, tasks: Sequence[str] = ()
) -> dict[str, Any]:
    """The contents of a new results file in which `metrics` are the first figures of `tasks` (default: all).

    Args:
        settings: keyword arguments of the metrics; they go over what the samples say (`row["scoring"]`).

    Raises ValueError for a task that the file does not hold or whose answers were not kept, for a setting that none of
    the metrics takes, and for what a metric cannot score (naming the sample); UnknownNameError for unknown metrics.
    """
    from eval.definitions import definitions
    from eval.recorded import recorded_task, with_metrics
    from eval.results import git_commit, versions
    from eval.scoring import prepare

    _check(result, metrics, settings, tasks)
    wanted = list(tasks) or list(result.tasks)
    new = {**result.data, "tasks": dict(result.tasks)}
    about = {**result.provenance, "tasks": dict(result.provenance.get("tasks", {}))}
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for key in wanted:
        stored = result.rows(key)
        task = with_metrics(recorded_task(key, result.about(key), stored), metrics)
        prepare(metrics, [(row["output"], row.get("answers") or []) for row in stored if not row.get("error")])
        rows_of[key] = [_row(row, metrics, settings) for row in stored]
        new["tasks"][key] = task.figures(rows_of[key])
        about["tasks"][key] = {
            **result.about(key), "metrics": list(task.metrics), "figures": list(task.aggregates()),
            "definitions": {**result.about(key).get("definitions", {}), **definitions(task)},
        }  # fmt: skip
    queues = {key: iter(rows) for key, rows in rows_of.items()}
    new["samples"] = [next(queues[row["task"]]) if row["task"] in queues else row for row in result.data["samples"]]
    note = {
        "file": str(result.path), "sha256": result.digest, "metrics": list(metrics), "settings": dict(settings),
        "tasks": wanted, "time": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions(),
        "git_commit": git_commit(),
    }  # fmt: skip
    new["provenance"] = {**about, "rescored": [*about.get("rescored", []), note]}
    return new


def _row(row: dict[str, Any], metrics: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The row under `metrics`. A metric that the run did not apply to the sample (its score is None) stays so."""
    from eval.scoring import keywords, scores_of

    old = row.get("scores") or {}
    scoring = {
        **(row.get("scoring") or {}),
        **{k: v for k, v in settings.items() if any(k in keywords(m) for m in metrics)},
    }
    applied = [name for name in metrics if name not in old or old[name] is not None]
    try:
        fresh = scores_of(
            applied, row["output"], row.get("answers") or [], scoring, row.get("error"), row.get("unscored")
        )
        for name, value in fresh.items():
            if not isinstance(value, (int, float, type(None))):
                raise ValueError(f"{name} gives {value!r}, which is no score")
    except (ValueError, TypeError) as error:
        raise ValueError(f"sample {row['id']!r} of task {row['task']!r} cannot be scored: {error}") from error
    scores = {**dict.fromkeys(metrics), **fresh, **{k: v for k, v in old.items() if k not in metrics}}
    headline = next((scores[name] for name in metrics if scores[name] is not None), row["score"])
    return {**row, "scoring": scoring, "score": headline, "scores": scores}


def _check(result: Result, metrics: Sequence[str], settings: Mapping[str, Any], tasks: Sequence[str]) -> None:
    from eval.scoring import keywords

    if not metrics:
        raise ValueError("name at least one metric")
    known = {name: keywords(name) for name in metrics}
    if unknown := [name for name in settings if not any(name in names for names in known.values())]:
        taken = ", ".join(f"{metric}: {', '.join(sorted(names)) or 'nothing'}" for metric, names in known.items())
        raise ValueError(f"no such setting: {', '.join(unknown)}. What can be set: {taken}")
    if missing := [task for task in tasks if task not in result.tasks]:
        raise ValueError(f"{result.path} has no task {', '.join(missing)}; it has: {', '.join(result.tasks)}")
    for task in tasks or result.tasks:
        if result.about(task).get("task") == "likelihood":
            raise ValueError(f"task {task}: its answers were weighed, not generated, so there is no output to score")


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What rescoring changed, task by task: figures old → new, and how many samples have another score."""
    from eval.table import figure_text, label, scalar_figures
    from eval.text_table import aligned

    lines: list[list[str]] = []
    for key in after["provenance"]["rescored"][-1]["tasks"]:
        both = before["tasks"].get(key, {}), after["tasks"][key]
        pairs = [(a, b) for a, b in zip(_rows(before, key), _rows(after, key)) if a["control"] is None]
        other = sum(a["score"] != b["score"] for a, b in pairs)
        lines.append([f"{key}: {other} of {len(pairs)} answers have another headline score"])
        for name in dict.fromkeys(name for figures in reversed(both) for name in scalar_figures(figures)):
            old, new = (figure_text(figures.get(name), _interval(figures, name)) for figures in both)
            lines.append([f"  {label(name)}", old if name in both[0] else "–", "→", new])
    return aligned(lines)


def _interval(figures: Mapping[str, Any], name: str) -> list[float] | None:
    return (figures.get("intervals") or {}).get(name)


def _rows(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    return [row for row in data["samples"] if row["task"] == key]


def setting(text: str) -> tuple[str, Any]:
    """`key=value`; the value as JSON where it is JSON, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def parser() -> argparse.ArgumentParser:
    from eval.metrics import metrics

    p = argparse.ArgumentParser(
        "eval/rescore.py", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("results", type=Path, help="results file of eval/run.py")
    p.add_argument(
        "--metric", required=True, help=f"comma-separated, headline first; known: {', '.join(metrics.names())}"
    )
    p.add_argument(
        "--set", nargs="+", type=setting, action="extend", default=[], metavar="KEY=VALUE", dest="settings",
        help="keyword arguments of the metrics, instead of what the samples say",
    )  # fmt: skip
    p.add_argument("--task", default="", help="comma-separated; default: all tasks of the file")
    p.add_argument("--out", type=Path, default=None, help="file to write (default: RESULTS-METRIC.json beside it)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 for a request that cannot be met."""
    args = parser().parse_args(argv)

    from eval.results import write_json
    from eval.results_file import read_results

    metrics, tasks = ([n.strip() for n in text.split(",") if n.strip()] for text in (args.metric, args.task))
    out = args.out or args.results.with_name(f"{args.results.stem}-{'-'.join(metrics)}.json")
    try:
        if out.exists():
            raise ValueError(f"{out} is there already and is not written over: choose another --out")
        result = read_results(args.results)
        new = rescore(result, metrics, dict(args.settings), tasks)
        write_json(new, out)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"eval/rescore.py: {error}\n")
        return 2
    sys.stdout.write(f"{changes(result.data, new)}\n\nresults  {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
