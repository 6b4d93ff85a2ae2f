"""Entry script: `python eval/run.py --model DIR --tasks synthetic_documents,synthetic_videos --out r.json`.

Opens a checkpoint through AutoModel and AutoProcessor, asks it every question of the tasks or datasets named, with and
without its evidence, writes one JSON and prints a table.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # started as a script, Python puts eval/ itself there

EPILOG = """examples:
  python eval/run.py --model runs/demo/export --tasks synthetic_documents,synthetic_videos,synthetic_medical
  python eval/run.py --model runs/demo/export --data my_data/ --metric anls --out r.json
  python eval/run.py --model runs/demo/export --data receipts.json --media-root images/ --limit 100
"""


def parser() -> argparse.ArgumentParser:
    """The command line; task and metric names come from the registries."""
    from eval.metrics import metrics
    from eval.tasks import tasks

    names = [name for name in tasks if name != "dataset"]
    p = argparse.ArgumentParser(
        "eval/run.py", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", required=True, help="checkpoint folder or hub id")
    p.add_argument("--tasks", default="", help=f"comma-separated; known: {', '.join(names)}")
    p.add_argument("--data", default="", help="comma-separated dataset folders, .jsonl or LLaVA .json files")
    p.add_argument(
        "--likelihood", default="",
        help="comma-separated datasets whose answers are weighed, not generated: mean probability of their tokens",
    )  # fmt: skip
    p.add_argument(
        "--data-root", default="runs/demo/data", help="where --tasks find <task>-test (default: %(default)s)"
    )
    p.add_argument("--media-root", default=None, help="folder of the media of --data (default: the file's)")
    p.add_argument("--metric", default=None, help=f"headline figure for --data; known: {', '.join(metrics.names())}")
    p.add_argument("--out", type=Path, default=Path("results.json"), help="results file (default: %(default)s)")
    p.add_argument("--limit", type=int, default=None, help="ask only the first N questions of each dataset")
    p.add_argument("--batch-size", type=int, default=64, help="questions per batch (default: %(default)s)")
    p.add_argument(
        "--pruning-rate", type=float, default=None, metavar="Q",
        help="share of video tokens left out (EVS; default: what the checkpoint says)",
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=0, help="decides the choices of the controls (default: %(default)s)")
    p.add_argument("--controls", action=argparse.BooleanOptionalAction, default=True, help="ask again without evidence")
    p.add_argument("--device", default=None, help="default: the first GPU, else the CPU")
    p.add_argument("--dtype", default="auto", help="weights' dtype, e.g. bfloat16 (default: as the checkpoint says)")
    p.add_argument("--trust-remote-code", action="store_true", help="run code that a checkpoint brings along")
    p.add_argument("--no-progress", action="store_true", help="no progress bars")
    return p


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 for a request that cannot be met, or 1 if every sample of a task failed."""
    args = parser().parse_args(argv)

    from eval.evaluate import evaluate, job_for_data, job_for_likelihood, job_for_task
    from eval.metrics import get_metric
    from eval.results import write_json
    from eval.table import render_figures
    from eval.tasks.base import Options

    try:
        if args.metric:
            get_metric(args.metric)
        jobs = [job_for_task(name, args.data_root) for name in _names(args.tasks)]
        jobs += [job_for_data(path, args.metric, args.media_root) for path in _names(args.data)]
        jobs += [job_for_likelihood(path, args.media_root) for path in _names(args.likelihood)]
        if not jobs:
            raise ValueError("nothing to do: name --tasks, --data or --likelihood")
        model, processor = load(args.model, args.device, args.dtype, args.trust_remote_code)
        if args.pruning_rate is not None:
            if not hasattr(processor, "set_pruning_rate"):
                raise ValueError(f"--pruning-rate: the processor of {args.model} cannot prune videos")
            processor.set_pruning_rate(args.pruning_rate)
    except (ValueError, OSError) as error:  # requests that cannot be met; OSError is also how a missing model shows
        sys.stderr.write(f"eval/run.py: {error}\n")
        return 2
    results = evaluate(
        model, processor, jobs, Options(args.seed, args.controls, args.limit),
        batch_size=args.batch_size, model_name=args.model, progress=not args.no_progress,
        command=["eval/run.py", *(sys.argv[1:] if argv is None else argv)],
    )  # fmt: skip
    write_json(results, args.out)
    sys.stdout.write(render_figures(results["tasks"]) + f"\n\nresults  {args.out}\n")
    return int(any(f["n"] and f["failed"] == f.get("questions", f["n"]) for f in results["tasks"].values()))


def load(model_dir: str, device: str | None, dtype: str, trust_remote_code: bool):
    """Model (in evaluation mode, on its device) and processor of a checkpoint, through the Auto classes."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import vlm  # noqa: F401  registers our classes with the Auto ones
    from vlm.special_tokens import check_special_tokens

    if not Path(model_dir).is_dir() and (model_dir.startswith((".", "/", "~")) or model_dir.count("/") != 1):
        raise ValueError(f"--model: no folder {model_dir}")  # the hub would complain about the form of an id
    processor = AutoProcessor.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
    model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=dtype, trust_remote_code=trust_remote_code)
    if model.config.model_type == "radio_vlm":
        check_special_tokens(model.config, processor.tokenizer)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), processor


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def set_up_logging() -> None:
    """For the process that this script has to itself; `main` leaves the loggers of whoever calls it alone."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("vlm.experts").setLevel(logging.WARNING)  # hundreds of calls; the result file holds each of them
    logging.getLogger("transformers").setLevel(logging.ERROR)  # missing kernels: `radio-vlm inspect` lists them


if __name__ == "__main__":
    set_up_logging()
    sys.exit(main())
