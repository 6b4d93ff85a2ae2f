"""Entry script: `python eval/run.py --model DIR --tasks synthetic_documents,synthetic_videos --out r.json`.

Opens a checkpoint through AutoModel and AutoProcessor, asks it every question of the tasks or datasets named, with and
without its evidence, writes one JSON and prints a table.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # started as a script, Python puts eval/ itself there

EPILOG = """examples:
  python eval/run.py --model runs/demo/export --tasks synthetic_documents,synthetic_videos,synthetic_medical
  python eval/run.py --model runs/demo/export --data my_data/ --metric anls --out r.json
  python eval/run.py --model runs/demo/export --data receipts.json --media-root images/ --limit 100

exit code: 0; 1 where all questions of a task failed (some: they are named, counted and scored as wrong); 2 for a
request that cannot be met; 130 when interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line; task and metric names come from the registries."""
    from eval.metrics import metrics
    from eval.sources import DataPlaces
    from eval.tasks import tasks
    from eval.tasks.dataset import NO_SCORES

    names = [name for name in tasks if name not in ("dataset", "likelihood")]
    known = ", ".join(name for name in metrics.names() if name not in NO_SCORES)
    p = argparse.ArgumentParser(
        "eval/run.py", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", required=True, help="checkpoint folder, hub id, or openai:MODEL@http://HOST:PORT/v1")
    p.add_argument("--tasks", default="", help=f"comma-separated; known: {', '.join(names)}")
    p.add_argument(
        "--data", "--task-file", default="", help="comma-separated dataset folders, .jsonl or LLaVA .json files"
    )
    p.add_argument(
        "--likelihood", default="",
        help="comma-separated datasets whose answers are weighed, not generated: mean probability of their tokens",
    )  # fmt: skip
    p.add_argument(
        "--data-root", default="runs/demo/data",
        help="where copies of public benchmarks and made <task>-test folders lie (default: %(default)s)",
    )  # fmt: skip
    p.add_argument("--cache-dir", default=str(DataPlaces.cache), help="pictures of benchmarks (default: %(default)s)")
    p.add_argument("--media-root", default=None, help="folder of the media of --data (default: the file's)")
    p.add_argument("--metric", default=None, help=f"headline figure for --data; known: judge, {known}")
    p.add_argument("--out", type=Path, default=Path("results.json"), help="results file (default: %(default)s)")
    p.add_argument("--report", action="store_true", help="write a page and Markdown beside --out (.html, .md)")
    p.add_argument("--resume", action="store_true", help="go on with what a killed run left beside --out")
    p.add_argument("--limit", type=int, default=None, help="ask only the first N questions of each dataset")
    p.add_argument("--batch-size", type=int, default=64, help="questions per batch (default: %(default)s)")
    p.add_argument(
        "--workers", type=int, default=None, metavar="N",
        help="threads that open and encode media ahead (default: 2, or 0 where the model runs on the CPU)",
    )  # fmt: skip
    p.add_argument("--max-new-tokens", type=int, default=None, metavar="N", help="instead of each task's own limit")
    p.add_argument("--max-frames", type=int, default=None, metavar="N", help="frames of a video, at most")
    p.add_argument("--fps", type=float, default=None, help="frames a second of a video")
    p.add_argument(
        "--pruning-rate", type=float, default=None, metavar="Q",
        help="share of video tokens left out (EVS; default: what the checkpoint says)",
    )  # fmt: skip
    p.add_argument(
        "--judge", default=None, metavar="MODEL",
        help="scores open answers that no rule can: anything that --model takes (default: they stay unscored)",
    )  # fmt: skip
    p.add_argument(
        "--calibration", action="store_true",
        help="also weigh yes against no where a medical question wants one of them: calibration error, Brier, AUROC",
    )  # fmt: skip
    p.add_argument(
        "--expert-weights", default=None, metavar="DIR",
        help="holds a folder of weights per medical expert (default: where each expert keeps its own)",
    )  # fmt: skip
    p.add_argument("--blind", action="store_true", help="ask without images and videos: the text-only baseline")
    p.add_argument("--seed", type=int, default=0, help="decides the choices of the controls (default: %(default)s)")
    p.add_argument(
        "--controls", action=argparse.BooleanOptionalAction, default=None,
        help="ask again with the evidence exchanged (default: yes, but not for public benchmarks)",
    )  # fmt: skip
    p.add_argument("--device", default=None, help="default: the first GPU, else the CPU")
    p.add_argument("--dtype", default="auto", help="weights' dtype, e.g. bfloat16 (default: as the checkpoint says)")
    p.add_argument("--trust-remote-code", action="store_true", help="run code that a checkpoint brings along")
    p.add_argument("--no-progress", action="store_true", help="no progress bars")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 for a request that cannot be met, or 1 if every sample of a task failed."""
    args = parser().parse_args(argv)

    import torch

    from eval.backends import open_backend
    from eval.backends.base import RefusedError
    from eval.evaluate import evaluate
    from eval.journal import ResumeError, remove_journal, set_aside_results
    from eval.judge import JUDGE
    from eval.ranks import join_ranks
    from eval.report.results_page import write_report
    from eval.results import write_json
    from eval.results_file import read_several
    from eval.scoring import check_metric
    from eval.submissions import write_submissions
    from eval.table import render_figures

    try:
        for name in _names(args.metric or ""):
            if name != JUDGE:
                check_metric(name)
        cpu = args.device == "cpu" or not torch.cuda.is_available()
        ranks = join_ranks(int(os.environ.get("WORLD_SIZE", "1")), cpu)
        options = options_of(args)
        jobs = jobs_of(args)
        for job in jobs:
            job.task.check(options)
        if options.calibration and not any(job.task.calibrated for job in jobs):
            raise ValueError("--calibration: none of the tasks has yes/no questions that are weighed")
        backend = open_backend(
            args.model, device=args.device or ranks.device, dtype=args.dtype, trust_remote_code=args.trust_remote_code,
            pruning_rate=args.pruning_rate, api_key=os.environ.get("OPENAI_API_KEY"),
        )  # fmt: skip
        judge = open_judge(args, ranks) if args.judge else None
        for asked in filter(None, (backend, judge)):
            asked.describe()  # an endpoint says only now whether it is there and takes the key
    except (ValueError, OSError) as error:  # requests that cannot be met; OSError is also how a missing model shows
        sys.stderr.write(f"eval/run.py: {error}\n")
        return 2
    try:
        results = evaluate(
            backend, jobs, options,
            batch_size=args.batch_size, model_name=args.model, progress=not args.no_progress, workers=args.workers,
            command=["eval/run.py", *(sys.argv[1:] if argv is None else argv)], out=args.out, resume=args.resume,
            ranks=ranks, judge=judge, judge_name=args.judge or "",
        )  # fmt: skip
    except (RefusedError, ResumeError) as error:
        sys.stderr.write(f"eval/run.py: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted; what was answered is kept beside {args.out}: --resume goes on from there\n")
        return 130
    if ranks.rank == 0:
        set_aside_results(args.out, results["run"])
        write_json(results, args.out)
        remove_journal(args.out)
        sys.stdout.write(render_figures(results) + f"\n\nresults  {args.out}\n")
        for path in write_submissions(jobs, results, args.out):
            sys.stdout.write(f"submission  {path}\n")
        if args.report:
            write_report(read_several([args.out]), *report_files(args.out))
            sys.stdout.write(f"report   {', '.join(map(str, report_files(args.out)))}\n")
    return int(any(f["n"] and f["failed"] == f.get("questions", f["n"]) for f in results["tasks"].values()))


def report_files(out: Path) -> tuple[Path, Path]:
    """Page and Markdown of `--report`."""
    return out.with_suffix(".html"), out.with_suffix(".md")


def options_of(args: argparse.Namespace):
    """What the command line says of how to ask. Raises ValueError for options in conflict."""
    from eval.tasks.base import Options

    if args.blind and args.controls:
        raise ValueError("--blind takes the media away, --controls exchanges them: choose one")
    if args.report and args.out in report_files(args.out):
        raise ValueError(f"--report would write over {args.out}: name a .json as --out")
    if args.out.is_dir():
        raise ValueError(f"--out {args.out} is a folder: name a file")
    least = {"limit": 1, "max_new_tokens": 1, "max_frames": 1, "batch_size": 1, "workers": 0}
    for name, bound in least.items():
        if getattr(args, name) is not None and getattr(args, name) < bound:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {bound}, not {getattr(args, name)}")
    video = {"max_frames": args.max_frames, "fps": args.fps}
    return Options(
        args.seed, args.controls, args.limit, args.max_new_tokens, args.blind,
        {name: value for name, value in video.items() if value is not None},
        args.calibration, args.expert_weights,
    )  # fmt: skip


def jobs_of(args: argparse.Namespace) -> list:
    """Tasks and their data. Raises ValueError or OSError for what cannot be asked."""
    from eval.jobs import job_for_data, job_for_likelihood, job_for_task
    from eval.sources import DataPlaces

    places = DataPlaces(args.data_root, args.cache_dir)
    jobs = [job_for_task(name, places, args.limit) for name in _names(args.tasks)]
    jobs += [job_for_data(path, args.metric, args.media_root) for path in _names(args.data)]
    jobs += [job_for_likelihood(path, args.media_root) for path in _names(args.likelihood)]
    if not jobs:
        raise ValueError("nothing to do: name --tasks, --data or --likelihood")
    return jobs


def open_judge(args: argparse.Namespace, ranks):
    """The backend of --judge, on the model's device. Raises as `open_backend`."""
    from eval.backends import open_backend

    return open_backend(
        args.judge, device=args.device or ranks.device, dtype=args.dtype, trust_remote_code=args.trust_remote_code,
        api_key=os.environ.get("OPENAI_API_KEY"),
    )  # fmt: skip


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def stop_on_sigterm() -> None:
    """What ends jobs on clusters is treated as Ctrl-C: a line that says how to go on."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def set_up_logging() -> None:
    """For the process that this script has to itself; `main` leaves the loggers of whoever calls it alone."""
    from eval.backends.quiet import hide_kernel_warnings

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("vlm.experts").setLevel(logging.WARNING)  # hundreds of calls; the result file holds each of them
    hide_kernel_warnings()


if __name__ == "__main__":
    set_up_logging()
    stop_on_sigterm()
    sys.exit(main())
