"""Entry script: `python eval/report/build.py --run runs/demo` writes `runs/demo/report.html`.

Reads only files below the run folder (and, for the feature maps, the checkpoints in it). The page needs no other file
and makes no request.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a script, Python puts eval/report/ itself there

if TYPE_CHECKING:
    from eval.report.private import Patients
    from eval.report.run_files import Run
    from eval.results_file import Result

logger = logging.getLogger(__name__)

MAPS, CONVERSATIONS = 6, 6


def build(run_dir: str | Path, out: str | Path | None = None, checkpoints: Sequence[str | Path] | None = None) -> Path:
    """Writes the report of a run folder and returns its path.

    Args:
        out: default `<run>/report.html`.
        checkpoints: whose feature maps are shown; default: the first and the newest stage that can be opened.
    """
    from eval.report import expert_sections as experts
    from eval.report import sections, workshop
    from eval.report.expert_card import is_conversation
    from eval.report.notice import banner
    from eval.report.parts import document
    from eval.report.run_files import read_run
    from eval.report.samples import cards

    run, hidden = _without_patients(read_run(run_dir))
    merged = [_merged(run)]
    plain = [row for row in run.rows if not is_conversation(row)]
    video = (run.provenance.get("model") or {}).get("video")
    maps, names = feature_maps(run, video, checkpoints)
    parts = [
        banner(merged),
        sections.header(run),
        sections.looking(run),
        sections.stage_table(run),
        experts.worth(merged),
        experts.confusions(merged),
        experts.calibration(merged),
        sections.losses(run),
        sections.answers(cards(plain, video), run),
        experts.conversations(merged, CONVERSATIONS),
        sections.features(maps, names),
        workshop.trainable(run),
        workshop.speed(run),
        workshop.small_print(run),
    ]
    made = f"Made from the files of {hidden.path(str(run_dir))}. {run.provenance.get('time', '')}"
    body = "".join(parts) + f"<footer>{escape(made)}</footer>"
    page = document(f"radio-vlm, run {hidden.path(run.folder.name)}", body)
    out = Path(out) if out else run.folder / "report.html"
    out.write_text(page, encoding="utf-8")
    return out


def _without_patients(run: Run) -> tuple[Run, Patients]:
    """The run as a page may show it, and what hides patients in other texts."""
    from eval.report.private import everyone, without_patients

    results = run.as_results()
    hidden = everyone(results)
    stages = [replace(stage, recipe=hidden.everywhere(stage.recipe)) for stage in run.stages]
    evaluations = [result.data for result in without_patients(results)]
    return replace(run, evaluations=evaluations, stages=stages, results=hidden.everywhere(run.results)), hidden


def _merged(run: Run) -> Result:
    """The evaluations of the newest stage as if one file held them."""
    from eval.results_file import Result

    parts = run.as_results()
    tasks = {key: figures for part in parts for key, figures in part.tasks.items()}
    about = {key: one for part in parts for key, one in part.provenance.get("tasks", {}).items()}
    data = {"tasks": tasks, "samples": run.rows, "provenance": {**run.provenance, "tasks": about}}
    return Result(run.folder, data, "", run.newest or "")


def feature_maps(
    run: Any, video: dict[str, Any] | None, checkpoints: Sequence[str | Path] | None
) -> tuple[list[tuple[str, list[str], float]], list[str]]:
    """Captions, pictures and shapes of the feature-map section, and the names of the checkpoints shown."""
    from eval.report.feature_maps import maps_of
    from eval.report.pictures import data_uri

    if checkpoints is None:
        found = sorted(path.parent for path in run.folder.glob("stage[0-9]*/config.json"))
        checkpoints = list(dict.fromkeys([found[0], found[-1]])) if found else []
    inputs = _inputs(run.rows, video)
    if not checkpoints or not inputs:
        return [], []
    try:
        maps = maps_of([Path(checkpoint) for checkpoint in checkpoints], [image for _, image in inputs])
    except Exception as error:  # the maps are an extra: a checkpoint that cannot be opened here must not cost the page
        logger.warning("no feature maps: %s: %s", type(error).__name__, error)
        return [], []
    items = [
        (
            caption,
            [data_uri(image), *(data_uri(of_checkpoint[place]) for of_checkpoint in maps)],
            image.width / image.height,
        )
        for place, (caption, image) in enumerate(inputs)
    ]
    stages = {"stage0": "before training"}
    names = [Path(c).name for c in list(checkpoints)[-len(maps) :]]
    return items, [stages.get(name, f"after {name.replace('stage', 'stage ')}") for name in names]


def _inputs(rows: Sequence[dict[str, Any]], video: dict[str, Any] | None) -> list[tuple[str, Any]]:
    """A few different inputs: one of every kind in turn, a single frame of a video."""
    from eval.report.pictures import is_video, still, video_frames
    from eval.table import label

    by_kind: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["control"] is None and row["media"]:
            by_kind.setdefault((row["task"], row["kind"]), row)
    tasks = list(dict.fromkeys(task for task, _ in by_kind))
    queues = [[row for (task, _), row in by_kind.items() if task == name] for name in tasks]
    turns = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    images = []
    for row in sorted(turns[:MAPS], key=lambda row: tasks.index(row["task"])):
        path = row["media"][0]
        try:
            image = video_frames(path, video)[0] if is_video(path) else still(path)
        except Exception as error:  # as for the sample pictures
            logger.warning("no feature map for %s: %s", row["id"], error)
            continue
        images.append((f"{label(row['task'])}, {label(row['kind'])}", image))
    return images


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 when there is no such run."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    p = argparse.ArgumentParser("eval/report/build.py", description=__doc__)
    p.add_argument("--run", type=Path, default=Path("runs/demo"), help="run folder (default: %(default)s)")
    p.add_argument("--out", type=Path, default=None, help="page to write (default: report.html in the run folder)")
    args = p.parse_args(argv)
    try:
        path = build(args.run, args.out)
    except OSError as error:
        sys.stderr.write(f"eval/report/build.py: {error}\n")
        return 2
    sys.stdout.write(f"report   {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
