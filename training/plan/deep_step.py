"""The step of a deep model from a few steps of shallow ones: memory is a sum over blocks, so one block of each kind and
one more of each kind tell the rest. Sixty blocks take a tenth of the time; a test compares with the whole model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from training.plan.batch import PlannedBatch
from training.plan.meta_step import StepMemory, meta_step

# Families whose base model simply runs its list of blocks, each of which is a module of its own.
_PLAIN = ("llama", "mistral", "nemotron_h", "qwen2", "qwen3", "bamba", "granite", "falcon_h1", "radio")
_LONG = 16384  # tokens


@dataclass(frozen=True)
class _Kind:
    """Blocks that are alike: in which list, at which places, and the bytes of their gradients."""

    owner: nn.Module
    name: str
    places: tuple[int, ...]
    gradients: int


def step_memory(model: nn.Module, batch: PlannedBatch) -> StepMemory:
    """As `meta_step`, in a fraction of its time where the blocks of both towers repeat, or rows are very long."""
    if batch.length <= 2 * _LONG:
        return _deep_step(model, batch)
    # Beyond a few thousand tokens everything that fused attention and a chunked scan hold grows with them alone.
    one, two = (vars(_deep_step(model, batch.cut(length))) for length in (_LONG, 2 * _LONG))
    steps = (batch.length - 2 * _LONG) / _LONG
    return StepMemory(**{name: two[name] + steps * (two[name] - one[name]) for name in one})


def _deep_step(model: nn.Module, batch: PlannedBatch) -> StepMemory:
    kinds = [kind for tower in (model.vision_model, model.language_model) for kind in _kinds(tower)]
    if not any(len(kind.places) > 1 for kind in kinds):
        return meta_step(model, batch)
    first = {id(kind): 1 for kind in kinds}
    with _shallow(kinds, first):
        base = meta_step(model, batch)
    fields = dict(vars(base))
    for kind in kinds:
        more = len(kind.places) - 1
        if more == 0:
            continue
        with _shallow(kinds, first | {id(kind): 2}):
            deeper = vars(meta_step(model, batch))
        slopes = {name: deeper[name] - vars(base)[name] for name in fields}
        # A block adds what it holds until its backward pass, and its gradients from then on.
        slopes["backward_with_gradients"] = max(slopes["backward_peak"], kind.gradients)
        for name in fields:
            fields[name] += more * slopes[name]
    return StepMemory(**fields)


def _kinds(tower: nn.Module) -> list[_Kind]:
    config = tower.config
    if not any(config.model_type.startswith(name) for name in _PLAIN) or getattr(config, "vitdet_window_size", None):
        return []
    lists = [
        (owner, name, child)
        for owner in tower.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and len(child) > 2
        and all(isinstance(block, GradientCheckpointingLayer) for block in child)
    ]  # fmt: skip
    found: dict[tuple, list[int]] = {}
    if len(lists) != 1:
        return []
    owner, name, blocks = lists[0]
    for place, block in enumerate(blocks):
        shapes = [(key, tuple(p.shape), p.requires_grad) for key, p in block.named_parameters()]
        found.setdefault(tuple(shapes), []).append(place)
    return [_Kind(owner, name, tuple(places), _gradient_bytes(blocks[places[0]])) for places in found.values()]


def _gradient_bytes(block: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in block.parameters() if p.requires_grad)


@contextmanager
def _shallow(kinds: list[_Kind], counts: dict[int, int]) -> Iterator[None]:
    """Inside, every list holds so many blocks of each kind, the last ones: most is held where the backward starts."""
    whole = {(id(kind.owner), kind.name): (kind.owner, kind.name, getattr(kind.owner, kind.name)) for kind in kinds}
    kept: dict[tuple[int, str], list[int]] = {}
    for kind in kinds:
        kept.setdefault((id(kind.owner), kind.name), []).extend(kind.places[-counts[id(kind)] :])
    try:
        for key, (owner, name, blocks) in whole.items():
            setattr(owner, name, nn.ModuleList(blocks[place] for place in sorted(kept[key])))
        yield
    finally:
        for owner, name, blocks in whole.values():
            setattr(owner, name, blocks)
