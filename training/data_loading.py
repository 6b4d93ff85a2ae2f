"""What a stage reads: its training mixture as batches of this rank, and the held-out samples."""

from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader

from training.data.collation import build_loader
from training.data.dataset import TrainingDataset
from training.data.mixture import Mixture
from training.environment import Machine
from training.heldout import heldout_loss
from training.recipe import Recipe, RecipeError, Source
from vlm.evs import check_places


def build_data(
    recipe: Recipe, processor, machine: Machine
) -> tuple[TrainingDataset, DataLoader, dict[str, TrainingDataset]]:
    """Training dataset, its loader for this rank, and the held-out datasets by source name."""
    data, train = recipe.data, recipe.train
    bad = Path(recipe.output_dir) / "bad_samples.jsonl"
    if data.video_pruning is not None:
        try:
            check_places(processor.projector_config, data.video_pruning[1], processor.video["temporal_pool"])
        except ValueError as error:
            raise RecipeError(f"data.video_pruning = {data.video_pruning}: {error}") from error
    pruning = None if data.video_pruning is None else (data.video_pruning[0], data.video_pruning[1])
    options = {"cache": data.cache, "report_path": bad, "video_pruning": pruning, "seed": recipe.seed}
    dataset = _dataset(recipe, data.sources, processor, **options)
    loader = build_loader(
        dataset, processor, batch_size=train.per_device_batch_size, rank=machine.rank, world_size=machine.world_size,
        seed=recipe.seed, num_workers=data.num_workers, group_by_length=data.group_by_length,
    )  # fmt: skip
    heldout = {}
    for index, source in enumerate(data.eval_sources):
        limit = source.limit or data.eval_limit
        samples = _dataset(recipe, [Source(**{**vars(source), "limit": limit})], processor, cache=True)
        name = source.name or source.path.rstrip("/").rsplit("/", 1)[-1]
        heldout[name if name not in heldout else f"{name}#{index}"] = samples
    return dataset, loader, heldout


def _dataset(recipe: Recipe, sources: list[Source], processor, **options) -> TrainingDataset:
    data = recipe.data
    mixture = Mixture(sources=[source.as_dict() for source in sources], seed=recipe.seed, root=data.root)
    return TrainingDataset(
        mixture, processor, max_length=data.max_length, bad_share_limit=data.bad_share_limit, **options
    )


def measure_heldout(
    model: nn.Module, heldout: dict[str, TrainingDataset], loader: DataLoader, recipe: Recipe, machine: Machine
) -> dict:
    """Held-out loss now; called by all ranks together."""
    device = next(model.parameters()).device
    batch_size = recipe.train.per_device_batch_size

    def collate(samples: list[dict]) -> dict:
        return {key: value for key, value in loader.collate_fn(samples).items() if key != "sources"}

    return heldout_loss(model, heldout, collate, batch_size, machine.rank, machine.world_size, device)
