"""`radio-vlm check-data`: find every bad sample before training does."""

import argparse
import sys
from pathlib import Path

HELP = "check a dataset before training: files, media, tags, lengths, labels"
DESCRIPTION = (
    "Reads every sample of one or more datasets and says what is wrong with it: broken JSON, wrong schema, missing,\n"
    "empty, truncated, corrupt or huge media, paths that leave the data folder, <image> tags that do not match the\n"
    "images, duplicate ids. With --model also: samples longer than --max-length and samples without a label to learn.\n"
    "The exit code is 0 when all is well, 1 when something is wrong, 2 when the command itself was wrong."
)
EPILOG = """examples:
  radio-vlm check-data my_data/                          schema and media only
  radio-vlm check-data llava.json --media-root images/ --model runs/tiny --max-length 4096
  radio-vlm check-data --recipe training/recipes/tiny/stage2.yaml --json problems.json

read are: a folder with records.jsonl, a JSONL file, a LLaVA JSON file, a Hugging Face dataset folder, parquet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="*", type=Path, metavar="PATH", help="dataset file or folder")
    parser.add_argument("--model", metavar="DIR|ID", help="count tokens and labels as this model's processor does")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="take data, max_length and model from a stage file")
    parser.add_argument("--max-length", type=int, metavar="N", help="longest allowed sample in tokens (needs a model)")
    parser.add_argument(
        "--media-root", metavar="DIR", help="folder the media paths start from (default: the data file's)"
    )
    parser.add_argument("--format", metavar="NAME", help="data format, if it cannot be told from the content")
    parser.add_argument("--split", metavar="NAME", help="split of a Hugging Face dataset that has several")
    parser.add_argument("--limit", type=int, metavar="N", help="check only the first N samples of each dataset")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core for large datasets)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here as JSON")
    parser.add_argument("--show", type=int, metavar="N", help="print at most N problems (default: all)")


def run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from training.data.validator import check
    from vlm.cli.loading import load_processor

    torch.set_num_threads(1)  # many small operations: a process a core does them faster than threads
    specs, model, max_length, share_limit = plan(args)
    if model is None:
        print("no model given: checking schema and media only (--model adds lengths and labels)\n")
    processor = load_processor(model) if model else None
    report = check(specs, processor, max_length, args.workers, progress=tqdm)
    for problem in report.problems[: args.show]:
        print(problem_line(problem))
    if args.show is not None and len(report.problems) > args.show:
        print(f"… and {len(report.problems) - args.show} more problems" + (f", see {args.json}" if args.json else ""))
    if report.problems:
        print()
    print(summary(report, share_limit))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(report.to_json(), encoding="utf-8")
        print(f"report written to {args.json}")
    sys.stdout.flush()
    return 0 if report.ok else 1


def plan(args: argparse.Namespace) -> tuple[list[dict], str | None, int | None, float | None]:
    """(source specs, model or None, max_length or None, bad_share_limit or None) from the arguments and the recipe."""
    from vlm.errors import RadioVLMError

    options = {"media_root": args.media_root, "format": args.format, "split": args.split, "limit": args.limit}
    options = {key: value for key, value in options.items() if value is not None}
    specs = [{"path": path, **options} for path in args.path]
    model, max_length, share_limit = args.model, args.max_length, None
    if args.recipe:
        from training.data.sources import under_root
        from training.recipe import RecipeError
        from training.recipe.loading import load_recipe

        try:
            recipe = load_recipe(args.recipe)
        except RecipeError as error:
            raise RadioVLMError(str(error)) from error
        for source in [*recipe.data.sources, *recipe.data.eval_sources]:
            specs.append(under_root(source.as_dict(), recipe.data.root) | options)
        share_limit = recipe.data.bad_share_limit
        if model is None and recipe.model and Path(recipe.model).is_dir():
            model = recipe.model
        elif model is None:
            print(f"the recipe's model {recipe.model} is not there yet")
        max_length = max_length or (recipe.data.max_length if model else None)
    if not specs:
        raise RadioVLMError("nothing to check: give a PATH or --recipe FILE")
    for spec in specs:
        if not Path(spec["path"]).exists():
            raise RadioVLMError(f"no such file or folder: {spec['path']}")
    return specs, model, max_length, share_limit


def problem_line(problem) -> str:
    """One problem as a line: place, sample, reason, words, file."""
    sample = f" sample {problem.id!r}" if problem.id else ""
    file = f" ({problem.file})" if problem.file and problem.file not in problem.where else ""
    return f"{problem.where}:{sample} [{problem.reason}] {problem.message}{file}"


def summary(report, share_limit: float | None = None) -> str:
    """The table of sources, the problems by reason, and the verdict."""
    from vlm.cli.tables import text_table

    rows = []
    for one in report.sources:
        tokens = one.tokens or {}
        lengths = [tokens.get(key, "") for key in ("min", "median", "p95", "max")]
        rows.append(
            (
                one.path,
                one.format or "unreadable",
                one.samples,
                one.bad,
                one.images,
                one.videos,
                one.documents,
                one.text_only,
                *lengths,
            )
        )
    head = (
        "dataset",
        "format",
        "samples",
        "bad",
        "images",
        "videos",
        "documents",
        "text only",
        "tokens min",
        "median",
        "95 %",
        "max",
    )
    width = len(head) if any(one.tokens for one in report.sources) else 8
    lines = [text_table(head[:width], [row[:width] for row in rows], right=range(2, width))]
    if report.ok:
        return "\n".join([*lines, "", "everything is in order"])
    reasons = list(report.reasons().items())
    lines += ["", text_table(("problem", "count"), reasons, right=(1,)), ""]
    bad, samples = sum(one.bad for one in report.sources), sum(one.samples for one in report.sources)
    verdict = f"{bad} of {samples} samples are bad"
    if share_limit is not None and samples:
        effect = "stop" if bad > share_limit * samples else "skip them and go on"
        verdict += f"; with data.bad_share_limit={share_limit:g} training would {effect}"
    return "\n".join([*lines, verdict])
