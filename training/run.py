"""The command line of a stage: the function behind training/stage1.py ... stage4.py.

    deepspeed --num_accelerators 2 training/stage2.py --config training/recipes/tiny/stage2.yaml learning_rate=3e-4

The same file runs on CPU processes and GPUs; without a launcher it trains in one process and without DeepSpeed.
"""

import sys
from pathlib import Path

from training.environment import prepare_process, stage_logger
from training.recipe import RecipeError
from training.recipe.loading import help_text, load_recipe


def run_stage(argv: list[str], default_config: str | None = None) -> int:
    """Run the stage that the command line describes.

    Returns the exit code: 0 done, 1 the stage failed, 2 the recipe or the command line is wrong, 75 stopped by a signal
    with everything saved (training/preemption.py).

    Args:
        argv: `--config FILE`, `--local_rank N` (added by launchers), `key=value` words.
        default_config: recipe used when no --config is given.
    """
    config, local_rank, words, wants_help = _parse(argv, default_config)
    chosen = any(word.partition("=")[0] == "--config" for word in argv)
    nothing_asked = not chosen and not words  # would overwrite the stage of a finished run unasked
    if wants_help or nothing_asked:
        (sys.stdout if wants_help else sys.stderr).write(help_text(sys.argv[0]) + "\n")
        return 0 if wants_help else 2
    try:
        recipe = load_recipe(config, words)
        recipe.check_runnable()
        machine = prepare_process(local_rank)
    except RecipeError as error:
        sys.stderr.write(f"{config}: {error}\n" if config else f"{error}\n")
        return 2
    from training.preemption import EXIT_CODE, Preempted
    from training.stage import train_stage
    from vlm.errors import RadioVLMError

    try:
        train_stage(recipe, machine, title=Path(config).stem if config else "stage")
    except (RecipeError, RadioVLMError) as error:  # mistakes of the recipe or the data: a message, no traceback
        stage_logger(machine).error(f"{type(error).__name__}: {error}")
        return 1
    except Preempted as stop:
        stage_logger(machine).info(str(stop))
        return EXIT_CODE
    return 0


def _parse(argv: list[str], default_config: str | None) -> tuple[str | None, int | None, list[str], bool]:
    config, local_rank, words, wants_help = default_config, None, [], False
    rest = iter(argv)
    for word in rest:
        flag, _, value = word.partition("=")
        if flag in ("--config", "--local_rank", "--local-rank"):
            value = value or next(rest, "")
            if flag == "--config":
                config = value
            else:
                local_rank = int(value)
        elif word in ("-h", "--help"):
            wants_help = True
        else:
            words.append(word)
    return config, local_rank, words, wants_help
