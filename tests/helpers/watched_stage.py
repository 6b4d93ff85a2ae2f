"""A short stage in this process over a mixed corpus, for tests of what watches it."""

from pathlib import Path

from tests.helpers.stage_runs import mixed_corpus, save_small_vlm
from training.environment import Machine
from training.recipe.loading import load_recipe
from training.stage import train_stage

MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)


def prepare(folder: Path) -> None:
    """A model in folder/stage0, a corpus in folder/data."""
    save_small_vlm(folder / "stage0")
    mixed_corpus(folder / "data", 12)


def words(folder: Path, out: str, *more: str) -> list[str]:
    """`key=value` words of a four-step stage that logs every step."""
    return [
        f"model={folder / 'stage0'}", f"output_dir={folder / out}", f"data.sources=[{{path: {folder / 'data'}}}]",
        "max_steps=4", "per_device_batch_size=2", "log_steps=1", "learning_rate=1e-3", *more,
    ]  # fmt: skip


def run(folder: Path, out: str, *more: str) -> Path:
    """Trains and returns the output folder."""
    train_stage(load_recipe(None, words(folder, out, *more)), MACHINE, title=out)
    return folder / out
