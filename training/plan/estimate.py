"""The plan of one stage: what trains, what a GPU holds, how many tokens it sees and how long that takes.

Memory is that of one step of the real model run on the meta device (`training.plan.deep_step`) plus what ZeRO holds
(`training.plan.states`); time is operations over a stated utilisation. Neither weights nor data are read.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import nn

from training.data.packing import GOOD_FILL
from training.deepspeed_file import deepspeed_config, offloads, read_deepspeed
from training.flops import DEVICE_TFLOPS, ModelFlops, device_tflops
from training.freezing import module_of
from training.plan.batch import PlannedBatch, planned_batch
from training.plan.deep_step import step_memory
from training.plan.meta_step import StepMemory
from training.plan.models import attach_planned_adapters, planned_model
from training.plan.states import ZEROS, GpuMemory, Weights, gpu_memory, weights_of
from training.recipe import Recipe, RecipeError
from training.towers import TOWERS, blocks_of, checkpoint_blocks
from training.trainable import make_trainable

GIB = 2**30
CONTEXT = 1.5 * GIB  # CUDA context, cuBLAS and NCCL buffers: an allowance, not measured
_SHORTEST = 512  # tokens of a row that are still advised
_LARGEST = 288  # GiB of the largest GPU there is
FRAGMENTS = 0.05  # of everything: what the caching allocator cannot reuse; an allowance, not measured


@dataclass(frozen=True)
class Machines:
    """What the stage would run on, and what is assumed of it.

    Attributes:
        memory: GiB of one GPU. mfu: assumed model-flops utilisation. image_share: share of a batch's tokens that are
            pictures. sample_tokens: mean length of a packed sample.
    """

    gpus: int = 8
    memory: float = 80
    device: str = "H100"
    mfu: float = 0.4
    image_share: float = 0.75
    sample_tokens: int = 2048
    bf16: bool = True

    def __post_init__(self) -> None:
        if device_tflops(self.device) is None:
            raise RecipeError(f"--device {self.device} is not known; known: {', '.join(DEVICE_TFLOPS)}")
        for name, value, right in (
            ("gpus", self.gpus, self.gpus > 0),
            ("memory", self.memory, self.memory > 0),
            ("mfu", self.mfu, 0 < self.mfu <= 1),
            ("image-share", self.image_share, 0 <= self.image_share <= 1),
            ("sample-tokens", self.sample_tokens, self.sample_tokens > 0),
        ):
            if not right:
                raise RecipeError(f"--{name} {value} is out of range")


@dataclass
class StagePlan:
    """Everything `radio-vlm plan` says of a stage.

    Attributes:
        parameters: module -> (all, of them trained). groups: what trains, one entry an optimizer group.
        memory: (ZeRO stage, checkpointing) -> bytes of a GPU. zero, checkpointing: the recipe's own.
        barred: ZeRO stages that training refuses together with the rest of the recipe; not in `memory`.
        flops: of one optimizer step. refused: why the stage cannot be run at all.
    """

    name: str
    zero: str
    checkpointing: bool
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)
    groups: list[dict] = field(default_factory=list)
    batch: PlannedBatch | None = None
    accumulation: int = 1
    steps: int = 0
    tokens_per_step: float = 0
    flops: float = 0
    seconds: float = 0
    machines: Machines = field(default_factory=Machines)
    step: dict[bool, StepMemory] = field(default_factory=dict)
    memory: dict[tuple[str, bool], GpuMemory] = field(default_factory=dict)
    barred: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    refused: str | None = None

    def needs(self, zero: str | None = None, checkpointing: bool | None = None) -> float:
        """GiB of a GPU, allowances included; of the recipe's own choice by default."""
        wanted = (zero or self.zero, self.checkpointing if checkpointing is None else checkpointing)
        return with_allowances(self.memory[wanted].total)

    @property
    def fits(self) -> bool:
        return self.refused is None and self.needs() <= self.machines.memory


def with_allowances(held: float) -> float:
    """GiB that a GPU must have to hold so many bytes of tensors."""
    return (held * (1 + FRAGMENTS) + CONTEXT) / GIB


def plan_stage(
    recipe: Recipe, build: dict | None, machines: Machines, name: str = "stage", batch: PlannedBatch | None = None
) -> StagePlan:
    """Plan one stage. Raises RecipeError where the recipe or its model is wrong.

    Args:
        build: as in `planned_model`. batch: what a process takes in a pass; default: `planned_batch`.
    """
    if recipe.train.zero != "none":
        deepspeed_config(recipe)  # a file that cannot be trained with is refused here as there
    wanted = recipe.train.gradient_checkpointing
    found = StagePlan(name, recipe.train.zero, wanted, machines=machines, steps=recipe.train.max_steps)
    try:
        found.accumulation = recipe.accumulation(machines.gpus)
    except RecipeError as error:  # the batch does not divide among so many; all else can be said
        found.refused = str(error)
    found.barred = barred_zeros(recipe)
    recipe = _plain(recipe)
    model, processor = planned_model(recipe, build, machines.bf16)
    attach_planned_adapters(model, recipe)
    groups, _ = make_trainable(model, processor, recipe)
    found.groups = _describe(groups)
    found.parameters = count_parameters(model)
    found.batch = batch = batch or planned_batch(recipe, model.config, machines.image_share)
    _add_time(found, model, batch, machines, recipe.train.global_batch_size)
    spread = recipe.train.context_parallel > 1
    if found.refused and not spread:
        return found
    weights = weights_of(model, groups, recipe)
    for checkpointing in (False, True):
        switch_checkpointing(model, checkpointing)
        found.step[checkpointing] = step_memory(model, batch)
    accumulates = found.accumulation > 1
    for zero in dict.fromkeys((*_allowed(found.barred), found.zero)):
        for checkpointing, step in found.step.items():
            memory = gpu_memory(weights, step, recipe, zero, machines.gpus, machines.bf16, accumulates)
            found.memory[zero, checkpointing] = memory
    if spread:
        found.refused = _why_refused(recipe, found)
    elif not found.fits:
        found.advice = _advise(found, recipe, model, weights)
    return found


def barred_zeros(recipe: Recipe) -> list[str]:
    """The ZeRO stages that cannot be put into this recipe; its own checks say so, so that no rule is kept twice."""
    found = []
    for zero in ZEROS:
        try:
            other = replace(recipe, train=replace(recipe.train, zero=zero))
            if zero != "none":
                deepspeed_config(other)
        except RecipeError:
            found.append(zero)
    return found


def switch_checkpointing(model: nn.Module, wanted: bool) -> None:
    """Checkpoint the blocks of every tower, or none."""
    for attribute in TOWERS.values():
        tower = getattr(model, attribute)
        if wanted:
            checkpoint_blocks(tower)
        elif blocks_of(tower) and hasattr(tower, "gradient_checkpointing_disable"):
            tower.gradient_checkpointing_disable()


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Module -> (parameters, of them trained)."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        total, trained = counts.get(module_of(name), (0, 0))
        size = parameter.numel()
        counts[module_of(name)] = (total + size, trained + size * parameter.requires_grad)
    return counts


def _plain(recipe: Recipe) -> Recipe:
    """The recipe without what does not change a plan, or cannot be done on the meta device."""
    recipe = copy.deepcopy(recipe)
    recipe.train.gradient_checkpointing = False
    for module in vars(recipe.modules).values():
        module.compile, module.gradient_checkpointing = False, None
    return recipe


def _describe(groups: list[dict]) -> list[dict]:
    return [
        {"group": group["name"], "tensors": len(group["params"]), "lr": group["lr"],
         "parameters": group.get("rows_parameters") or sum(p.numel() for p in group["params"]),
         "weight_decay": group["weight_decay"], "optimizer": "muon" if group["use_muon"] else "adamw"}
        for group in groups
    ]  # fmt: skip


def _add_time(found: StagePlan, model: nn.Module, batch: PlannedBatch, machines: Machines, total: int | None) -> None:
    """Tokens, operations and seconds. total: rows of an optimizer step, where the recipe says so."""
    from vlm.geometry import views_of

    fill = GOOD_FILL if batch.packed else 1.0
    passes = machines.gpus * found.accumulation
    if found.refused:  # the batch of the recipe, which so many GPUs cannot share
        passes = total / batch.rows
    found.tokens_per_step = batch.tokens * fill * passes
    sample = min(machines.sample_tokens, batch.length) if batch.packed else batch.length
    lengths = [sample] * (batch.tokens // sample)
    views = [h * w for grid in batch.grids for h, w in views_of(grid, model.config.geometry)]
    found.flops = fill * passes * ModelFlops(model).step(batch.tokens, batch.patches, lengths, views)
    peak = device_tflops(machines.device) * 1e12
    found.seconds = found.steps * found.flops / (machines.gpus * peak * machines.mfu)


def _why_refused(recipe: Recipe, found: StagePlan) -> str:
    """The reason against a stage with context parallelism, with what a row needs in one piece."""
    needs = found.needs(checkpointing=True)
    one = f"In one piece a row needs {needs:,.0f} GiB of a GPU (train.zero={found.zero}, with checkpointing)"
    if needs > _LARGEST:
        rest = f"{one}, and no GPU has that: lower data.max_length, or train this stage elsewhere"
    elif needs > found.machines.memory:
        rest = f"{one}, more than {found.machines.memory:g}: lower data.max_length, or take larger GPUs"
    else:
        rest = f"{one}, which fits here: set train.context_parallel=1"
    return (
        f"train.context_parallel = {recipe.train.context_parallel}: rows of {found.batch.length:,} tokens are meant to "
        f"be spread over several GPUs, which is not implemented. {rest}"
    )


def _allowed(barred: list[str]) -> list[str]:
    return [zero for zero in ZEROS if zero not in barred]


def _cheapest_first(barred: list[str]) -> list[str]:
    """The ways to share out that the recipe can take, those that wait for main memory last."""
    away = {zero: zero != "none" and bool(offloads(read_deepspeed(zero))) for zero in ZEROS}
    return sorted(_allowed(barred), key=away.get)


def _advise(found: StagePlan, recipe: Recipe, model: nn.Module, weights: Weights) -> list[str]:
    """Switches that make the stage fit, the least costly first; what does not help is not named."""
    limit, words, tried = found.machines.memory, [], []
    checkpoint = "" if found.checkpointing else " train.gradient_checkpointing=true"

    def say(switch: str, needs: float) -> None:
        tried.append((needs, switch))
        if needs <= limit:
            words.append(f"{switch}: {needs:.1f} GiB, fits")

    def needs_with(zero: str, step: StepMemory, gpus: int) -> float:
        return with_allowances(gpu_memory(weights, step, recipe, zero, gpus, found.machines.bf16, True).total)

    if not found.checkpointing:
        say("train.gradient_checkpointing=true", found.needs(checkpointing=True))
    for zero in _cheapest_first(found.barred):
        before = len(words)
        say(f"train.zero={zero}", found.needs(zero))
        if not found.checkpointing:
            say(f"train.zero={zero}{checkpoint}", found.needs(zero, True))
        if len(words) > before:
            break
    least = min((zero for zero, _ in found.memory), key=lambda zero: found.needs(zero, True))
    for switch, batch in _smaller(found.batch, recipe):
        if words:
            break
        switch_checkpointing(model, True)
        step = step_memory(model, batch)
        for zero in dict.fromkeys((found.zero, least)):
            own = "" if zero == found.zero else f"train.zero={zero} "
            say(f"{own}{switch}{checkpoint}", needs_with(zero, step, found.machines.gpus))
    shared = "zero2" if "zero3" in found.barred else "zero3"
    for gpus in (2**n for n in range(1, 11)):
        needs = needs_with(shared, found.step[True], gpus)
        if gpus > found.machines.gpus and needs <= limit:
            words.append(f"{gpus} GPUs with train.zero={shared} and gradient checkpointing: {needs:.1f} GiB each, fits")
            break
    if not words:
        needs, switch = min(tried)
        words.append(f"GPUs of more memory: the least that was found is {needs:.1f} GiB, with {switch}")
    if not recipe.adapter.rank:
        words.append("adapter.rank=16 (LoRA): no gradients and moments of the language model")
    elif recipe.adapter.quantize is None:
        whole = " train.zero=zero2" if _cuts_weights(found.zero) else ""  # quantized weights cannot be cut
        words.append(f"adapter.quantize=nf4{whole} (QLoRA): the frozen language model in a quarter of its size")
    return words


def _smaller(batch: PlannedBatch, recipe: Recipe) -> Iterator[tuple[str, PlannedBatch]]:
    """(words for the recipe, the batch they give): fewer rows first, then shorter ones."""
    fewer = " train.per_device_batch_size=1" if batch.rows > 1 else ""
    if fewer:
        yield fewer.strip(), batch.cut(batch.length, rows=1)
    for length in (batch.length // share for share in (2, 4, 8)):
        if length < _SHORTEST:
            break
        keys = [f"data.max_length={min(length, recipe.data.max_length)}"]  # a sample must fit its row
        if recipe.data.packing and recipe.data.pack_length:
            keys.append(f"data.pack_length={length}")
        yield " ".join(keys) + fewer, batch.cut(length, rows=1)


def _cuts_weights(zero: str) -> bool:
    return zero != "none" and read_deepspeed(zero)["zero_optimization"]["stage"] == 3
