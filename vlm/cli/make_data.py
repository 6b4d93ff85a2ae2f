"""`radio-vlm make-data`: write one of the embedded synthetic datasets to disk."""

import argparse
import shutil
import time
from pathlib import Path

HELP = "write an embedded synthetic dataset (documents, videos, medical, text)"
DESCRIPTION = (
    "Makes a dataset folder: records.jsonl (one conversation a line), dataset.json and the media. The same task,\n"
    "split, seed and number give the same files. No content (label, value and layout together) occurs in two splits,\n"
    "whatever the seeds."
)
EPILOG = """examples:
  radio-vlm make-data --task documents --split train --seed 1 --n 2000 --out data/documents-train
  radio-vlm make-data --task medical --split test --seed 7 --n 200 --out data/medical-test

n is the number of records; of val and test also the number of questions. Options of a corpus: --option key=value."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", required=True, metavar="NAME", help="documents, videos, medical or text")
    parser.add_argument("--split", required=True, choices=("train", "val", "test"))
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--n", type=int, required=True, metavar="M", help="number of records")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; made if missing")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the corpus; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    from training.data.synthetic.registry import get_corpus
    from vlm.cli.parts import parse_pairs
    from vlm.errors import RadioVLMError

    try:
        write = get_corpus(args.task)
    except KeyError as error:
        raise RadioVLMError(f"--task: {error.args[0]}") from error
    if args.n < 1:
        raise RadioVLMError(f"--n must be at least 1, this is {args.n}")
    options = parse_pairs(args.option, "--option")
    check_target(args.out)
    # Written beside the target and moved at the end: what stands under its name is always whole.
    unfinished = args.out.with_name(args.out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    started = time.monotonic()
    try:
        write(unfinished, args.split, args.seed, args.n, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise RadioVLMError(f"--option: the corpus {args.task} {str(error).split('() ')[-1]}") from error
    finally:
        if not (unfinished / "dataset.json").is_file():
            shutil.rmtree(unfinished, ignore_errors=True)
    if args.out.exists():
        shutil.rmtree(args.out)
    unfinished.rename(args.out)
    with (args.out / "records.jsonl").open(encoding="utf-8") as file:
        records = sum(1 for _ in file)
    seconds = time.monotonic() - started
    print(f"{args.out}: {records} records of {args.task} ({args.split}, seed {args.seed}) in {seconds:.1f} s")
    return 0


def check_target(out: Path) -> None:
    """Refuse to replace anything but an empty folder or a dataset made by this command."""
    from vlm.errors import RadioVLMError

    if out.is_dir() and any(out.iterdir()) and not is_synthetic(out):
        raise RadioVLMError(f"--out {out} is not empty and holds no synthetic dataset; give another folder")
    if out.exists() and not out.is_dir():
        raise RadioVLMError(f"--out {out} is a file")


def is_synthetic(folder: Path) -> bool:
    import json

    try:
        return json.loads((folder / "dataset.json").read_text())["name"].startswith("synthetic_")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
