"""`radio-vlm make-data`: write one of the embedded synthetic datasets to disk."""

import argparse
import shutil
import time
from pathlib import Path

HELP = "write an embedded synthetic dataset (documents, pages, videos, medical, patients, text)"
DESCRIPTION = (
    "Makes a dataset folder: records.jsonl (one conversation a line), dataset.json and the media. The same task,\n"
    "split, seed and number give the same files. No content (label, value and layout together) occurs in two splits,\n"
    "whatever the seeds."
)
EPILOG = """examples:
  radio-vlm make-data --task documents --split train --seed 1 --n 2000 --out data/documents-train
  radio-vlm make-data --task medical --split test --seed 7 --n 200 --out data/medical-test

  radio-vlm make-data --plan plan.yaml --seed 1 --out data

n is the number of records; of val and test also the number of questions. Options of a corpus: --option key=value.
A plan makes many sets, two at a time, each below --out: a line a set, `documents-train: {n: 2000}`; the name is
<corpus>-<split>, `corpus: videos` says where it differs, `options: [frames=16]` are as --option."""
PLAN_WORKERS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--task", metavar="NAME", help="documents, pages, videos, medical, patients or text")
    what.add_argument("--plan", type=Path, metavar="FILE", help="YAML file that lists several sets")
    parser.add_argument("--split", choices=("train", "val", "test"), help="with --task")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--n", type=int, metavar="M", help="number of records; with --task")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; made if missing")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the corpus; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    from vlm.cli.parts import parse_pairs
    from vlm.errors import RadioVLMError

    if args.plan:
        return run_plan(args)
    if args.split is None or args.n is None:
        raise RadioVLMError("--task needs --split and --n")
    options = parse_pairs(args.option, "--option")
    print(make(args.task, args.split, args.seed, args.n, args.out, options))
    return 0


def run_plan(args: argparse.Namespace) -> int:
    """Every set of the plan, largest first, so that no worker is left with a long one at the end."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    import yaml
    from tqdm import tqdm

    from vlm.cli.parts import parse_pairs
    from vlm.errors import RadioVLMError

    plan = yaml.safe_load(args.plan.read_text(encoding="utf-8"))
    if not isinstance(plan, dict) or not all(isinstance(entry, dict) and "n" in entry for entry in plan.values()):
        raise RadioVLMError(f"{args.plan}: expected lines such as `documents-train: {{n: 2000}}`")
    # Forked workers share what is already imported; nothing here has started threads.
    with ProcessPoolExecutor(PLAN_WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        jobs = []
        for name, entry in sorted(plan.items(), key=lambda item: -item[1]["n"]):
            corpus, _, split = name.rpartition("-")
            options = parse_pairs(entry.get("options", []), f"{args.plan}: {name}: options")
            task = entry.get("corpus", corpus)
            jobs.append(pool.submit(make, task, split, args.seed, entry["n"], args.out / name, options))
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="data sets", unit="set"):
            tqdm.write(job.result())
    return 0


def make(task: str, split: str, seed: int, n: int, out: Path, options: dict) -> str:
    """Writes one set, whole or not at all; returns a line that says what was written."""
    from training.data.synthetic.registry import get_corpus
    from vlm.errors import RadioVLMError

    try:
        write = get_corpus(task)
    except KeyError as error:
        raise RadioVLMError(f"--task: {error.args[0]}") from error
    if n < 1:
        raise RadioVLMError(f"--n must be at least 1, this is {n}")
    check_target(out)
    # Written beside the target and moved at the end: what stands under its name is always whole.
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    started = time.monotonic()
    try:
        write(unfinished, split, seed, n, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise RadioVLMError(f"--option: the corpus {task} {str(error).split('() ')[-1]}") from error
    finally:
        if not (unfinished / "dataset.json").is_file():
            shutil.rmtree(unfinished, ignore_errors=True)
    if out.exists():
        shutil.rmtree(out)
    unfinished.rename(out)
    listed = next(out.glob("*.jsonl"))  # records, or the images that `make-expert-data` makes records of
    with listed.open(encoding="utf-8") as file:
        lines = sum(1 for _ in file)
    return f"{out}: {lines} {listed.stem} of {task} ({split}, seed {seed}) in {time.monotonic() - started:.1f} s"


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
