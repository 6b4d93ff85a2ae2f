"""`radio-vlm plan`: what a stage, or every stage of a recipe folder, will need before a GPU is asked for."""

import argparse
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path

HELP = "memory, tokens and time of a stage or a recipe folder, before it is run"
DESCRIPTION = (
    "Reads a recipe and says what trains, what a GPU holds under every ZeRO stage, how many tokens a step sees and\n"
    "how long the stage takes at a stated utilisation. One step of the real model is run on the meta device, so\n"
    "freezing, adapters, packing and checkpointing count as they are; no weights and no data are read.\n"
    "Exit code 0: every stage fits; 1: one does not, or is refused; 2: wrong command or recipe."
)
EPILOG = """examples:
  radio-vlm plan training/recipes/nemotron_nano_12b_v2_c_radio_v2_vlm_h --gpus 64
  radio-vlm plan training/recipes/nemotron_h_4b_c_radio_v4_so400m/sft.yaml --gpus 1 --memory 141 --device H200
  radio-vlm plan my/stage.yaml --gpus 8 train.zero=zero3 data.max_length=8192 --json
  radio-vlm plan my/folder train.zero=zero2 sft:data.max_length=8192     # the second for the stage sft alone"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE|FOLDER", help="a stage file, or a folder of them")
    parser.add_argument("words", nargs="*", metavar="[STAGE:]KEY=VALUE", help="overrides, as for `train`")
    parser.add_argument("--gpus", type=int, default=None, metavar="N", help="GPUs in all (default: the folder's, or 8)")
    parser.add_argument("--memory", type=float, default=80, metavar="GIB", help="of one GPU (default: 80)")
    parser.add_argument("--device", default="H100", metavar="NAME", help="whose peak the time is counted from (H100)")
    parser.add_argument("--mfu", type=float, default=0.4, help="assumed model-flops utilisation (default: 0.4)")
    parser.add_argument(
        "--image-share", type=float, default=0.75, metavar="X", help="share of tokens that are pictures (default: 0.75)"
    )
    parser.add_argument(
        "--sample-tokens", type=int, default=2048, metavar="N", help="mean length of a packed sample (default: 2048)"
    )
    parser.add_argument("--fp32", action="store_true", help="plan for fp32 (CPU processes) instead of bf16")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from training.pipeline.stages import words_of
    from training.plan.estimate import Machines, plan_stage
    from training.recipe import RecipeError
    from training.recipe.loading import load_recipe
    from vlm.cli.plan_tables import assumptions, folder_table, stage_page
    from vlm.errors import RadioVLMError

    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    try:
        stages, build, launch = find_stages(args.recipe)
        gpus = args.gpus or launch.get("gpus_per_node", 8) * launch.get("nodes", 1)
        machines = Machines(gpus, args.memory, args.device, args.mfu, args.image_share, args.sample_tokens,
                            not args.fp32)  # fmt: skip
        plans, names = [], [name for name, _ in stages]
        for name, path in stages:
            words = words_of(name, names, args.words)
            try:
                plans.append(plan_stage(load_recipe(path, words), build, machines, name))
            except RecipeError as error:
                raise RecipeError(f"{path}: {error}") from error
            if not args.json:
                print(("\n" if len(plans) > 1 else "") + stage_page(plans[-1]), flush=True)
    except (RecipeError, OSError) as error:
        raise RadioVLMError(str(error)) from error
    if args.json:
        print(json.dumps([as_json(plan) for plan in plans], indent=1))
    else:
        if len(plans) > 1:
            print("\n" + folder_table(plans))
        print("\n" + assumptions(plans[0]))
    return 0 if all(plan.fits for plan in plans) else 1


def find_stages(recipe: Path) -> tuple[list[tuple[str, Path]], dict | None, dict]:
    """((name, file) of every stage, what the model is built from, suggested launch)."""
    from training.pipeline.folder import FILE, read_folder
    from training.recipe import RecipeError

    if not recipe.exists():
        raise RecipeError(f"{recipe} does not exist: give a stage file or a recipe folder")
    folder = recipe if recipe.is_dir() else recipe.parent
    if recipe.is_dir() or (folder / FILE).is_file():
        pipeline = read_folder(folder)
        stages = [(stage.name, stage.path) for stage in pipeline.stages]
        if not recipe.is_dir():
            stages = [(recipe.stem, recipe)]
        return stages, pipeline.build or pipeline.sizes or None, pipeline.launch
    return [(recipe.stem, recipe)], None, {}


def as_json(plan) -> dict:
    """A plan as plain numbers; sizes in bytes, `needed_gib` with allowances."""
    values = asdict(plan)
    values["batch"].pop("grids")
    values["step"] = {"checkpointing" if key else "plain": value for key, value in values["step"].items()}
    values["memory"] = [
        {"zero": zero, "checkpointing": checkpointing, "needed_gib": plan.needs(zero, checkpointing), **asdict(memory)}
        for (zero, checkpointing), memory in plan.memory.items()
    ]
    return values | {"fits": plan.fits, "needed_gib": None if plan.refused else plan.needs()}
