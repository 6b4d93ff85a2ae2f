"""Where figures go: tensorboard by default, wandb and trackio by name; each is transformers' own callback.

Nothing here needs a network: tensorboard and trackio write files, wandb without an API key writes a run that
`wandb sync` sends later.
"""

import importlib.util
import logging
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments

from training.recipe import RecipeError

logger = logging.getLogger("training")
PROJECT = "radio-vlm"


def check_reporters(names: list[str]) -> None:
    """Called by all ranks before anything is loaded.

    Raises:
        RecipeError: a package is missing; says how to install it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            others = [other for other in names if other != name]
            raise RecipeError(
                f"watch.report_to names {name}, which is not installed: pip install {name}, or set "
                f"watch.report_to=[{','.join(others)}]"
            )


def reporters(names: list[str], folder: Path, args: TrainingArguments) -> list[TrainerCallback]:
    """The callbacks of rank 0."""
    args.project, args.run_name = PROJECT, "/".join(folder.absolute().parts[-2:])
    return [MAKERS[name](folder, args) for name in names]


def _tensorboard(folder: Path, args: TrainingArguments) -> TrainerCallback:
    """Into output_dir/tensorboard (the library's own choice is settable by environment only)."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder / "tensorboard")))


def _wandb(folder: Path, args: TrainingArguments) -> TrainerCallback:
    """The run is opened here, for the callback would ask for a login; it goes on with a run that is open."""
    import wandb
    from transformers.integrations import WandbCallback

    if wandb.run is None:
        mode = None  # what WANDB_MODE says
        if wandb.api.api_key is None and wandb.setup().settings.mode == "online":
            mode = "offline"
            logger.info(f"wandb has no API key: writing the run to {folder / 'wandb'}; `wandb sync` sends it")
        wandb.init(project=PROJECT, name=args.run_name, dir=str(folder), mode=mode)
    return WandbCallback()


def _trackio(folder: Path, args: TrainingArguments) -> TrainerCallback:
    """Into trackio's local database; `trackio show` opens it."""
    from transformers.integrations import TrackioCallback

    return TrackioCallback()


MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
