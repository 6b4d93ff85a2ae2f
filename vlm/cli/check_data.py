"""`radio-vlm check-data`: find every bad sample before training does."""

import argparse
import sys
from pathlib import Path

HELP = "check a dataset or a recipe: files, media, tags, lengths, labels, duplicates, test data in training"
DESCRIPTION = (
    "Reads every sample of datasets, or of all sources of a recipe, and says what is wrong with it: broken JSON,\n"
    "wrong schema, missing, empty, truncated, corrupt or huge media, paths that leave the data folder, <image> tags\n"
    "that do not match the images, ids used twice, held-out samples whose picture or conversation is in training.\n"
    "With a model also: samples longer than max_length, and samples without a label to learn.\n"
    "The exit code is 0 when all is well, 1 when something is wrong (see --fail-on), 2 when the command itself was\n"
    "wrong, 130 when it was interrupted; the report then holds what was found until then."
)
EPILOG = """examples:
  radio-vlm check-data my_data/                          schema and media only
  radio-vlm check-data llava.json --media-root images/ --model runs/tiny --max-length 4096
  radio-vlm check-data training/recipes/tiny/stage2.yaml data.root=runs/demo/data --html check.html
  radio-vlm check-data training/recipes/tiny             every stage of a recipe folder, in its order
  radio-vlm check-data train/ --against test/ --decode full --write-clean clean/

read are: a folder with records.jsonl, a JSONL file, a LLaVA JSON file, tar shards, a picture folder, a Hugging Face
dataset folder, parquet, hf://ORG/NAME.

levels: --decode headers opens every medium and looks for its end (what is damaged in the middle passes); --decode full
decodes it. Pictures are compared by their looks when there are held-out sources or --duplicates is given; that decodes
them too (JPEG at a fraction of their size). The same file and the same words are always found. Of a streamed source the
first 1000 records are looked at, or as many as --limit or its own limit says."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    # `words`, so that key=value is taken behind options too (see vlm.cli.main.parse)
    add("words", nargs="*", metavar="PATH|RECIPE|key=value", help="data, stage files, recipe folders")
    add("--recipe", type=Path, action="append", default=[], metavar="FILE", help="a stage file, as PATH takes it too")
    add("--against", action="append", default=[], metavar="PATH", help="held-out data that training must not contain")
    add("--model", metavar="DIR|ID", help="count tokens and labels as this model's processor does")
    add("--max-length", type=int, metavar="N", help="longest allowed sample in tokens (needs a model)")
    add("--decode", choices=("headers", "full"), default="headers", help="how far media are read (default: headers)")
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument("--duplicates", action="store_true", default=None, help="compare pictures by their looks")
    looks.add_argument("--no-duplicates", action="store_false", dest="duplicates", help="do not")
    add("--distance", type=int, metavar="BITS", help="of 256, up to which two pictures look the same (default: 12)")
    add("--fail-on", choices=("any", "limit"), default="any", help="exit with 1 at any problem (default), or only when "
        "more than data.bad_share_limit of the samples are bad or a source cannot be read")  # fmt: skip
    add("--preview", type=int, metavar="N", help="print N samples of each source, what is not learned in grey")
    add("--color", choices=("auto", "always", "never"), default="auto", help="grey in the terminal (default: auto)")
    add("--html", type=Path, metavar="FILE", help="write everything as one page that needs no network")
    add("--json", type=Path, metavar="FILE", help="write the whole report here as JSON")
    add("--write-clean", type=Path, metavar="DIR", help="write JSON sources without their bad records, as JSONL")
    add("--show", type=int, default=5, metavar="N", help="print at most N problems of each kind (default: 5)")
    add("--media-root", metavar="DIR", help="folder the media paths start from (default: the data file's)")
    add("--format", metavar="NAME", help="data format, if it cannot be told from the content")
    add("--split", metavar="NAME", help="split of a Hugging Face dataset that has several")
    add("--limit", type=int, metavar="N", help="check only the first N samples of each dataset")
    add("--workers", type=int, metavar="N", help="processes (default: one a core for large datasets)")


def run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from training.data.check import check
    from training.data.check.clean import write_clean
    from training.data.check.fingerprint import DISTANCE
    from vlm.cli.check_data_plan import read_plan
    from vlm.cli.check_data_text import preview_text, problem_lines, summary
    from vlm.cli.loading import load_processor
    from vlm.errors import RadioVLMError

    torch.set_num_threads(1)  # many small operations: a process a core does them faster than threads
    plan = read_plan(args)
    distance = DISTANCE if args.distance is None else args.distance
    if not 0 <= distance < 64:
        raise RadioVLMError(f"--distance {distance} is not in 0 ... 63")
    say("\n".join([*plan.notes, ""]))
    processor = load_processor(plan.model) if plan.model else None
    try:
        report = check(plan.jobs, processor, None, args.workers, tqdm, args.decode, plan.looks, distance)
    except ImportError as error:  # a package for videos, PDF or DICOM files; it says which
        raise RadioVLMError(str(error)) from error
    say("\n".join([*problem_lines(report, args.show, args.json), summary(report, plan.share_limit)]))
    if args.preview or args.html:
        from training.data.check.preview import previews

        wanted = args.preview or PREVIEWS
        shown = previews(report, plan.jobs, processor, wanted)
        if args.preview:
            color = args.color == "always" or args.color == "auto" and sys.stdout.isatty()
            say("\n" + preview_text(shown, color))
        if args.html:
            from vlm.cli.check_data_page import write_page

            write_page(args.html, report, plan, shown)
            say(f"page written to {args.html}")
    if args.json:
        report.write_json(args.json)
        say(f"report written to {args.json}")
    if args.write_clean:
        for line in write_clean(report, args.write_clean):
            say(line)
    if report.interrupted:
        return 130
    return exit_code(report, args.fail_on, plan.share_limit)


PREVIEWS = 3  # samples of each source on the page


def say(text: str) -> None:
    """Prints at once, also what the terminal's encoding cannot hold (names of files are bytes)."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def exit_code(report, fail_on: str, share_limit: float) -> int:
    """0 or 1. `limit`: only what would stop training, and held-out sources that are as bad."""
    if fail_on == "any":
        return 0 if report.ok else 1
    return int(report.unreadable or max(report.bad_share(role) for role in ("train", "eval")) > share_limit)
