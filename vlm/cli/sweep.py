"""`radio-vlm sweep`: the tiny preset trained with each projector at equal steps; tokens x accuracy x prefill time."""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

HELP = "train the tiny preset with every projector and compare tokens, accuracy and prefill time"
DESCRIPTION = (
    "Builds, trains (alignment, then everything) and examines one small model for each projector, all from the same\n"
    "bases, on the same pages and for the same number of steps, then measures their prefill times in turn. Bases and\n"
    "pages are taken from --run where they are, else made. Writes results.json, sweep.md and report.html into --out.\n"
    "Ended early, it goes on where it stopped; a variant that fails is shown as failed."
)
EPILOG = """examples:
  radio-vlm sweep                                          all projectors (40 minutes on two CPU cores)
  radio-vlm sweep --projectors pixel_shuffle mlp           some of them
  radio-vlm sweep --steps 4 --projectors mlp --out runs/x  every step in a minute; the scores mean nothing"""
STEPS = 840
BATCH_SIZE = 32
MARK = "sweep.json"  # the settings; only a folder that has it is emptied by --fresh
FEW_STEPS = 100  # below this many the data and bases that are missing are made at the demo's --fast size
REFRESH_SECONDS = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", dest="source", type=Path, default=Path("runs/demo"), metavar="DIR",
        help="bases/ and data/ of a demo, if it has them"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), metavar="DIR", help="default: runs/sweep")
    parser.add_argument(
        "--steps", type=int, default=STEPS, metavar="N",
        help="optimizer steps of stage 2; stage 1 takes a sixth of them more (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--projectors", nargs="+", metavar="NAME", help="types (pixel_shuffle) or variants (pixel_shuffle-3) only"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of new weights, training and missing data")
    parser.add_argument(
        "--at-once", type=int, metavar="N", help="variants that train side by side (default: 1 on a GPU, else 2)"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier sweep in --out finished")


def run(args: argparse.Namespace) -> int:
    import torch

    import training
    from vlm.cli.sweep_jobs import Chain, run_chains
    from vlm.cli.sweep_variants import choose
    from vlm.errors import RadioVLMError

    if min(args.steps, args.batch_size, 1 if args.at_once is None else args.at_once) < 1:
        raise RadioVLMError("--steps, --batch-size and --at-once take numbers from 1 on")
    variants = choose(args.projectors)
    started = time.time()
    root = Path(training.__file__).resolve().parents[1]
    claim(args.out, args.fresh)
    (args.out / MARK).write_text(json.dumps({k: str(v) for k, v in vars(args).items() if k != "run"}) + "\n")
    on_gpu = torch.cuda.is_available()
    at_once = args.at_once or (1 if on_gpu else min(2, os.cpu_count() or 1))
    env = {"TOKENIZERS_PARALLELISM": "false"} | ({} if on_gpu else {"OMP_NUM_THREADS": "1"})

    show = Terminal()
    plan = prepare(args, root, at_once, env, show)
    chains = [Chain(variant.name, plan.folder(variant), plan.commands(variant)) for variant in variants]
    for chain in chains:
        chain.read_finished()
    kept = sum(chain.next_step is None for chain in chains)
    words = f", {kept} of them finished earlier" if kept else ""
    print(
        f"{len(chains)} variants{words}: {plan.stage1_steps} + {plan.steps} steps of {plan.batch_size} pages each, "
        f"{at_once} at once; logs in {args.out}/variants/*/*.log"
    )
    run_chains(chains, at_once, env, show, fill=fill_port)
    print("prefill times, the models in turn on one thread", flush=True)
    results = collect(args, plan, variants, chains, started)
    return report(results, args.out)


def claim(out: Path, fresh: bool) -> None:
    """The folder is new, empty or an earlier sweep's; `fresh` takes away what that one trained."""
    from vlm.errors import RadioVLMError

    if out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise RadioVLMError(f"{out} is not empty and holds no earlier sweep ({MARK} is missing); give another --out")
    if fresh:
        shutil.rmtree(out / "variants", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def fill_port(word: str) -> str:
    from training.pipeline.commands import free_port
    from vlm.cli.sweep_variants import PORT

    return str(free_port()) if word == PORT else word


def prepare(args: argparse.Namespace, root: Path, at_once: int, env: dict[str, str], show) -> "Plan":  # noqa: F821
    """Bases and pages of --run, or made in --out where it has none; returns the plan of all variants."""
    import yaml

    from vlm.cli.sweep_jobs import Chain, run_chains
    from vlm.cli.sweep_variants import BASES, DATA, Plan, parts_of, preparation
    from vlm.errors import RadioVLMError

    size = "fast" if args.steps < FEW_STEPS else "full"
    settings = yaml.safe_load((root / "training/recipes/tiny/demo.yaml").read_text())[size]
    has = {kind: parts_of(args.source, files) for kind, files in (("bases", BASES), ("data", DATA))}
    if missing := [kind for kind, found in has.items() if not found]:
        commands = preparation(root, args.out, args.seed, settings, "bases" in missing, "data" in missing)
        chains = [Chain(name, args.out / "prepare" / name, {"make": command}) for name, command in commands.items()]
        for chain in chains:
            chain.read_finished()
        if any(chain.next_step for chain in chains):
            print(f"making {' and '.join(missing)}: {args.source} has none")
        run_chains(chains, at_once, env, show)
        if failed := [chain.error for chain in chains if chain.error]:
            raise RadioVLMError("; ".join(failed))
    bases, data = (args.source if found else args.out for found in has.values())
    return Plan(root, args.out, bases / "bases", data / "data", args.steps, args.batch_size, args.seed)


def collect(args: argparse.Namespace, plan, variants: list, chains: list, started: float) -> dict:
    """What every variant reached, and the prefill times of those that were trained; the content of results.json."""
    from eval.results import machine, versions
    from vlm.cli.sweep_prefill import measure
    from vlm.cli.sweep_variants import TEST

    rows = [variant_result(variant, chain, plan) for variant, chain in zip(variants, chains)]
    trained = {row["name"]: plan.folder(variant) / "stage2" for row, variant in zip(rows, variants) if not row["error"]}
    timed = measure(trained, plan.data / TEST) if trained else {}
    return {
        "format": 1,
        "steps": {"stage1": plan.stage1_steps, "stage2": plan.steps},
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "data": str(plan.data / TEST),
        "bases": str(plan.bases),
        "wall_seconds": round(time.time() - started, 1),
        "machine": machine(),
        "versions": versions(),
        "variants": [{**row, **timed.get(row["name"], {})} for row in rows],
    }


def variant_result(variant, chain, plan) -> dict:
    """One row: settings, scores, training facts; `error` says why there are none."""
    folder = plan.folder(variant)
    row = {"name": variant.name, "label": variant.label, "type": variant.type, "settings": variant.settings}
    row |= {"error": chain.error, "seconds": chain.seconds}
    if chain.error:
        return row
    figures = json.loads((folder / "eval.json").read_text())
    scores = figures["tasks"]["documents"]
    heldout = json.loads((folder / "stage2/heldout.json").read_text())
    row |= {name: scores[name] for name in ("exact_match", "anls", "n", "failed", "kinds")}
    row["images_exchanged"] = scores["controls"].get("images_exchanged")
    row["heldout_loss"] = heldout.get("after", {}).get("loss")
    row["samples_per_second"] = json.loads((folder / "stage2/throughput.json").read_text())["samples_per_second"]
    row["projector_parameters"] = figures["provenance"]["model"]["parts"].get("multi_modal_projector")
    row["commands"] = chain.commands
    return row


def report(results: dict, out: Path) -> int:
    """Writes results.json, sweep.md and report.html; prints the table. 1 when no variant was trained."""
    from eval.report.sweep import text_rows, write
    from vlm.cli.tables import text_table

    paths = write(results, out)
    head, rows = text_rows(results)
    print("\n" + text_table(head, rows, right=range(1, len(head))))
    print("\n" + "\n".join(f"{path.suffix[1:]:6}{path}" for path in paths))
    return int(all(row["error"] for row in results["variants"]))


class Terminal:
    """One live line of what runs now; a lasting line for each variant that ends. In a log file, a line now and then."""

    def __init__(self) -> None:
        self.live, self.shown, self.started = sys.stdout.isatty(), 0.0, time.monotonic()

    def __call__(self, what) -> None:
        from vlm.cli.steps import clock

        elapsed = clock(time.monotonic() - self.started)
        if isinstance(what, str):
            print(("\r\x1b[2K" if self.live else "") + f"{elapsed}  {what}", flush=True)
            return
        words = f"{elapsed}  " + " | ".join(f"{name} {step}: {last[:110]}" for name, step, last in what)
        if self.live:
            print("\r\x1b[2K" + words[: os.get_terminal_size().columns - 1], end="", flush=True)
        elif time.monotonic() - self.shown >= REFRESH_SECONDS:
            self.shown = time.monotonic()
            print(words[:240], flush=True)
