"""What a stage reads: its training mixture as batches of this rank, and the held-out samples."""

from pathlib import Path

from torch import nn

from training.data.buffered_plan import BufferedPlan, LengthGroups, PackedRows
from training.data.collation import GROUP, GroupedBatchSampler
from training.data.dataset import TrainingDataset
from training.data.loader import BatchLoader, BatchWork, Measurer, unmeasured
from training.data.map_feed import MapFeed
from training.data.mixture import Mixture
from training.data.plan import GroupedPlan, Plan
from training.environment import Machine
from training.heldout import heldout_loss
from training.recipe import Recipe, RecipeError, Replay, Source
from vlm.evs import check_places


def build_data(
    recipe: Recipe, processor, machine: Machine, model: nn.Module | None = None
) -> tuple[TrainingDataset, BatchLoader, dict[str, TrainingDataset]]:
    """Training dataset, its loader for this rank, and the held-out datasets by source name.

    model: asked whether it keeps packed samples apart.
    """
    data = recipe.data
    bad = Path(recipe.output_dir) / "bad_samples.jsonl"
    if data.video_pruning is not None:
        try:
            check_places(processor.projector_config, data.video_pruning[1], processor.video["temporal_pool"])
        except ValueError as error:
            raise RecipeError(f"data.video_pruning = {data.video_pruning}: {error}") from error
    if data.packing and model is not None:
        check_packing(model)
    pruning = None if data.video_pruning is None else (data.video_pruning[0], data.video_pruning[1])
    options = {"cache": data.cache, "report_path": bad, "video_pruning": pruning, "seed": recipe.seed}
    if is_streamed(recipe):
        dataset = TrainingDataset(None, processor, data.max_length, data.bad_share_limit, **options)
    else:
        dataset = _dataset(recipe, data.sources, processor, data.replay, **options)
    heldout = {}
    for index, source in enumerate(data.eval_sources):
        limit = source.limit or data.eval_limit
        samples = _dataset(recipe, [Source(**{**vars(source), "limit": limit})], processor, cache=True)
        name = source.name or source.path.rstrip("/").rsplit("/", 1)[-1]
        heldout[name if name not in heldout else f"{name}#{index}"] = samples
    return dataset, build_loader(recipe, dataset, machine), heldout


def is_streamed(recipe: Recipe) -> bool:
    """Whether any source is read from front to back; then all of the mixture is."""
    return any(source.streaming for source in recipe.data.all_sources())


def check_packing(model: nn.Module) -> None:
    """Raises RecipeError when the language model would let packed samples see each other."""
    language_model = getattr(model, "language_model", model)
    ask = getattr(language_model, "why_not_packed", None)
    reason = ask() if ask is not None else "it was not prepared for it (`llm.prepare_language_model`)"
    if reason is not None:
        raise RecipeError(
            f"data.packing = true, but this language model ({language_model.config.model_type}) cannot keep packed "
            f"samples apart: {reason}; set data.packing=false"
        )


def build_loader(recipe: Recipe, dataset: TrainingDataset, machine: Machine) -> BatchLoader:
    """The endless batches of this rank."""
    data = recipe.data
    plan = _plan(recipe, dataset, machine)
    work = BatchWork(dataset, packed=data.packing, replace=isinstance(plan, GroupedPlan))
    return BatchLoader(plan, work, data.num_workers, data.prefetch, pin_memory=machine.device == "cuda")


def _plan(recipe: Recipe, dataset: TrainingDataset, machine: Machine) -> Plan:
    data, batch_size, rank, world_size = (
        recipe.data, recipe.train.per_device_batch_size, machine.rank, machine.world_size
    )  # fmt: skip
    streamed = is_streamed(recipe)
    if not streamed and not data.packing:
        lengths = dataset.lengths() if data.group_by_length else None
        accumulation = recipe.accumulation(world_size)
        sampler = GroupedBatchSampler(
            dataset.order, batch_size, lengths, rank, world_size, recipe.seed, accumulation=accumulation
        )
        return GroupedPlan(sampler)
    if streamed:
        from training.data.stream_feed import StreamFeed, with_replay

        sources = [source.as_dict() for source in data.sources]
        if data.replay.part:
            sources = with_replay(sources, [source.as_dict() for source in data.replay.sources], data.replay.part)
        feed = StreamFeed(
            sources, seed=recipe.seed, rank=rank, world_size=world_size, root=data.root, block=data.stream_block
        )
    else:
        feed = MapFeed(dataset.order, rank, world_size, recipe.seed)
    measure = Measurer(dataset, data.num_workers, data.prefetch)
    if data.packing:
        arrange = PackedRows(data.pack_length or data.max_length, data.packing_buffer)
        return BufferedPlan(feed, measure, arrange, rows=batch_size)
    if data.group_by_length:
        return BufferedPlan(feed, measure, LengthGroups(batch_size, batch_size * GROUP, recipe.seed))
    return BufferedPlan(feed, unmeasured, LengthGroups(batch_size, batch_size, recipe.seed))


def _dataset(
    recipe: Recipe, sources: list[Source], processor, replay: Replay | None = None, **options
) -> TrainingDataset:
    data, share = recipe.data, replay.part if replay else 0.0
    mixture = Mixture(
        sources=[source.as_dict() for source in sources], seed=recipe.seed, root=data.root, replay_share=share,
        replay=[source.as_dict() for source in replay.sources] if share else (),
    )  # fmt: skip
    return TrainingDataset(
        mixture, processor, max_length=data.max_length, bad_share_limit=data.bad_share_limit, **options
    )


def measure_heldout(
    model: nn.Module, heldout: dict[str, TrainingDataset], loader: BatchLoader, recipe: Recipe, machine: Machine
) -> dict:
    """Held-out loss now; called by all ranks together."""
    device = next(model.parameters()).device
    batch_size = recipe.train.per_device_batch_size

    def collate(samples: list[dict]) -> dict:
        return {key: value for key, value in loader.collate_fn(samples).items() if key != "sources"}

    return heldout_loss(model, heldout, collate, batch_size, machine.rank, machine.world_size, device)
