"""`radio-vlm demo`: the main job end to end, as the commands a person would type, one after another.

Data, two small bases, an untrained model, four stages by DeepSpeed, an evaluation after each, the export, the report.
"""

import argparse
import os
import platform
import shutil
import sys
import time
from pathlib import Path

from vlm.cli.steps import Runner, Step, StepFailed, clock

HELP = "make data, build a model, train it in four stages, evaluate, export and report"
DESCRIPTION = (
    "The whole recipe on embedded data, small enough for two CPU cores (a quarter of an hour) and the same on GPUs.\n"
    "Writes everything below --out: data/, experts/, bases/, stage0/ … stage4/, eval/, logs/, export/, results.json,\n"
    "report.html."
)
EPILOG = (
    "examples:\n"
    "  radio-vlm demo                 the main job\n"
    "  radio-vlm demo --fast          every step in a few minutes; the scores mean nothing\n"
    "  radio-vlm demo --seed 2 --out runs/demo-2"
)
STAGES = {1: "alignment", 2: "instruction tuning", 3: "long context", 4: "medical-expert tuning"}
# Wall seconds on two cores, for the remaining time shown; not a promise.
SECONDS = {
    "data": 45,
    "bases": 75,
    "dialogues": 30,
    "new": 10,
    "stage1": 60,
    "stage2": 240,
    "stage3": 80,
    "stage4": 120,
    "eval": 35,
    "end": 15,
}
DIALOGUES = ("train", "val", "test")
STAGE_FOLDERS = "stage0 stage1 stage2 stage3 stage4".split()
MADE = [*"data data.yaml bases experts eval export results.json report.html logs".split(), *STAGE_FOLDERS]
MARK = "logs/01-data.log"  # what the first step of a demo leaves: only such a folder is emptied


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        help="run folder (default: runs/demo); what an earlier demo left there is replaced",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of data, initial weights and training (default: 1)")
    parser.add_argument("--fast", action="store_true", help="every step with little data and few training steps")
    parser.add_argument(
        "--processes", type=int, default=None, help="training processes (default: one a GPU, or 2 on CPU)"
    )
    parser.add_argument("--stop-after", type=int, choices=range(0, 5), default=4, help=argparse.SUPPRESS)
    # Set by make, so that the wall time holds the installation too.
    parser.add_argument("--started", type=float, default=None, help=argparse.SUPPRESS)


def flags(**options: object) -> list[str]:
    """`flags(out="x", n=3)` -> ["--out", "x", "--n", "3"]; underscores become dashes."""
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items())
    return [word for pair in pairs for word in pair]


def build_steps(args: argparse.Namespace, root: Path, settings: dict, processes: int) -> list[Step]:
    """The demo as a list of steps; scripts by absolute path, results relative to the current folder."""
    python, out, seed = sys.executable, args.out, args.seed
    cli = [python, "-m", "vlm"]

    plan = out / "data.yaml"
    make_data = [*cli, "make-data", *flags(plan=plan, seed=seed, out=out / "data")]
    bases = {"llm": ("language_model.py", "llm_seconds"), "radio": ("radio.py", "radio_seconds")}
    make_bases = [
        [python, str(root / "training/bases" / script), *flags(out=out / "bases" / name, seconds=seconds, seed=seed)]
        for name, (script, key) in bases.items()
        for seconds in [settings["bases"][key]]
    ]
    parts = flags(vision=out / "bases/radio", llm=out / "bases/llm", preset="tiny", seed=seed, out=out / "stage0")
    expert = [python, "-m", "training.experts.chest_xray_tiny", *flags(out=out / "experts/chest_xray_tiny", seed=seed)]
    steps = [
        Step("data", [make_data], SECONDS["data"]),
        Step("bases: language model, RADIO, an expert", [*make_bases, expert], SECONDS["bases"], [*bases, "expert"], 3),
        Step("dialogues with experts", dialogues(args, root, settings, cli), SECONDS["dialogues"], list(DIALOGUES)),
        Step("new: an untrained model from the bases", [[*cli, "new", *parts]], SECONDS["new"]),
    ]
    for stage in range(1, args.stop_after + 1):
        training = stage_command(args, root, settings, processes, stage)
        steps.append(Step(f"stage {stage}: {STAGES[stage]}", [training], SECONDS[f"stage{stage}"]))
        steps.append(evaluation_step(args, root, stage))
    return steps


def dialogues(args: argparse.Namespace, root: Path, settings: dict, cli: list[str]) -> list[list[str]]:
    """The experts asked about every image of the patients, and what was said written as conversations."""
    wording = root / "training/recipes/tiny/wording.yaml"
    same = {"expert_weights": args.out / "experts", "wording": wording, "seed": args.seed}
    return [
        [
            *(*cli, "make-expert-data"),
            *flags(images=args.out / f"data/patients-{split}", out=args.out / f"data/medical-{split}", split=split),
            *flags(**same),
            *("--shares", *(f"{form}={share}" for form, share in settings["dialogues"][split].items())),
        ]
        for split in DIALOGUES
    ]


def stage_command(args: argparse.Namespace, root: Path, settings: dict, processes: int, stage: int) -> list[str]:
    from training.pipeline.commands import launcher

    recipe = root / f"training/recipes/tiny/stage{stage}.yaml"
    overrides = settings["stages"] | {
        "model": f"{args.out}/stage{stage - 1}",
        "output_dir": f"{args.out}/stage{stage}",
        "seed": args.seed,
        "data.root": f"{args.out}/data",
    }
    return [
        *launcher(processes),
        *(str(root / f"training/stage{stage}.py"), "--config", str(recipe)),
        *(f"{key}={value}" for key, value in overrides.items()),
    ]


def evaluation_step(args: argparse.Namespace, root: Path, stage: int) -> Step:
    """Pages in one process, videos and medical in another: two cores, one thread each."""
    groups = {"documents": ["documents", "pages"], "videos-medical": ["videos", "medical"]}
    commands = []
    for name, tasks in groups.items():
        data = ",".join(f"{args.out}/data/{task}-test" for task in tasks)
        options = {"model": f"{args.out}/stage{stage}", "data": data, "seed": args.seed}
        options |= {"expert_weights": args.out / "experts"} if "medical" in tasks else {}
        result = f"{args.out}/eval/stage{stage}-{name}.json"
        commands.append([sys.executable, str(root / "eval/run.py"), *flags(**options, out=result)])
    return Step(f"evaluation after stage {stage}", commands, SECONDS["eval"], list(groups))


def closing_steps(args: argparse.Namespace, root: Path) -> list[Step]:
    export = [sys.executable, "-m", "vlm", "export", f"{args.out}/stage{args.stop_after}", f"{args.out}/export"]
    report = [sys.executable, str(root / "eval/report/build.py"), "--run", str(args.out)]
    return [Step("export and report", [[*export, "--results", f"{args.out}/results.json"], report], SECONDS["end"])]


def run(args: argparse.Namespace) -> int:
    import torch
    import yaml

    import training
    from eval.table import render_table

    started = args.started or time.time()
    root = Path(training.__file__).resolve().parents[1]
    settings = yaml.safe_load((root / "training/recipes/tiny/demo.yaml").read_text())["fast" if args.fast else "full"]
    processes = args.processes or torch.cuda.device_count() or 2

    foreign = [name for name in MADE if (args.out / name).exists()]
    if foreign and not (args.out / MARK).is_file():
        print(
            f"radio-vlm demo: {args.out} holds {', '.join(foreign)}, and not of an earlier demo ({MARK} is missing); "
            "name another folder with --out, or remove them",
            file=sys.stderr,
        )
        return 2
    for name in MADE:
        path = args.out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "data.yaml").write_text(yaml.safe_dump(settings["data"], sort_keys=False))

    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    steps = build_steps(args, root, settings, processes)
    print(
        f"RADIO × hybrid Mamba: {len(steps) + 1} steps, "
        f"{processes} training processes on {device_name()}; logs in {args.out}/logs"
    )
    runner = Runner(steps, args.out / "logs", Path.cwd(), threads)
    try:
        runner.run()
        finish(args, started, runner)  # the model card and the report show the table: results before them, and after
        runner.run(closing_steps(args, root))
    except StepFailed as error:
        print(f"\nradio-vlm demo: a step failed.\n{error}", file=sys.stderr)
        return 1
    results = finish(args, started, runner)
    print("\n" + render_table(results))
    note = ", installation included" if args.started else ""
    print(f"\nwall time   {clock(results['wall_seconds'])} (minutes:seconds{note})")
    print(f"report      {results['report']}")
    print(f"checkpoint  {results['checkpoint']}")
    return 0


def finish(args: argparse.Namespace, started: float, runner) -> dict:
    """Collects what the evaluations wrote and adds what only the demo knows; writes results.json."""
    from eval.table import collect, write_results

    results = {"wall_seconds": round(time.time() - started, 1), "seed": args.seed, "fast": args.fast}
    results |= {"steps": {title: round(seconds, 1) for title, seconds in runner.took.items()}}
    results |= collect(args.out)
    results |= {"checkpoint": str(args.out / "export"), "report": str(args.out / "report.html")}
    write_results(results, args.out / "results.json")
    return results


def device_name() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
