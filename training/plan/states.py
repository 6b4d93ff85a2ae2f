"""What a GPU holds beside activations: weights, gradients, optimizer and buffers, by ZeRO stage.

Sources: ZeRO (arXiv 1910.02054) and what DeepSpeed 0.19 allocates: bf16 weights and gradients, fp32 copies of what
trains (also under fp32), a bucket for gradients, and under ZeRO-3 gathered weights up to `stage3_max_live_parameters`.
An optimizer that is moved out of the GPU (`offload_optimizer`) takes its gradients along.
"""

from dataclasses import dataclass, replace

from torch import nn

from training.deepspeed_file import offloads, read_deepspeed
from training.distillation.teacher import is_own_teacher, trained_beside
from training.plan.meta_step import StepMemory
from training.recipe import ZERO_CHOICES, Recipe

ZEROS = ZERO_CHOICES
_QUANTIZED = {"nf4": 0.516, "int8": 1.002}  # bytes a weight, scales included (nf4: blocks of 64, scales quantized too)
_LIVE = 10**9  # DeepSpeed's default of stage3_max_live_parameters


@dataclass(frozen=True)
class Weights:
    """Bytes and counts of a model's weights.

    Attributes:
        held: bytes of all weights as the model holds them. trained: of those that train. numbers: how many train.
        moments: bytes of optimizer moments. total: how many weights there are.
        largest: bytes of the largest tensor that one operation reads; dequantized: bytes of the largest quantized one.
        ema: bytes of the moving average. hidden: width of the language model, from which `auto` buckets follow.
        teacher: bytes that self-distillation keeps beside the model.
    """

    held: float
    trained: float
    numbers: int
    moments: float
    total: int
    largest: float
    dequantized: float
    ema: float
    hidden: int
    teacher: float = 0.0


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of one GPU at the worst moment of a step.

    Attributes:
        buffers: DeepSpeed's buckets and gathered weights, DDP's buckets. activations: the step beside all that,
            gradients on their way included. host: bytes of main memory that this GPU's share needs.
    """

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    host: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.buffers + self.activations


def weights_of(model: nn.Module, groups: list[dict], recipe: Recipe) -> Weights:
    """Read off a model on the meta device and its optimizer groups."""
    quantized = _quantized(model) if recipe.adapter.quantize else {}
    rate = _QUANTIZED.get(recipe.adapter.quantize, 0)
    held = trained = 0.0
    numbers = largest = total = 0
    for name, parameter in model.named_parameters():
        size = parameter.numel() * parameter.element_size()
        total += parameter.numel()
        held += parameter.numel() * rate if name in quantized else size
        largest = max(largest, size)
        if parameter.requires_grad:
            trained, numbers = trained + size, numbers + parameter.numel()
    moments = sum(
        (4 if group["use_muon"] else 8) * sum(p.numel() for p in group["params"]) for group in groups
    )
    dequantized = max(quantized.values(), default=0)
    ema = 4 * numbers if recipe.train.ema_decay else 0
    hidden = model.config.get_text_config().hidden_size
    teacher = _teacher(model, recipe, held)
    return Weights(held, trained, numbers, moments, total, largest, dequantized, ema, hidden, teacher)


def _teacher(model: nn.Module, recipe: Recipe, held: float) -> float:
    """Bytes of the teacher: a second model as large as this one; with adapters, whose base is the teacher, copies of
    what trains beside them."""
    if not recipe.distill.weight:
        return 0.0
    if not is_own_teacher(recipe):
        return held
    return float(sum(parameter.numel() * parameter.element_size() for parameter in trained_beside(model)))


def _quantized(model: nn.Module) -> dict[str, int]:
    """Names of the weights that bitsandbytes would hold, with their bytes: linear layers of the language model, its
    head excepted."""
    head = model.get_output_embeddings()
    found = {}
    for name, module in model.named_modules():
        adapter = any(part.startswith("lora_") for part in name.split("."))
        if name.startswith("language_model.") and isinstance(module, nn.Linear) and module is not head and not adapter:
            found[f"{name}.weight"] = module.weight.numel() * module.weight.element_size()
    return found


def gpu_memory(
    weights: Weights, step: StepMemory, recipe: Recipe, zero: str, gpus: int, bf16: bool, accumulates: bool
) -> GpuMemory:
    """One GPU of `gpus` under a ZeRO stage (`ZEROS`, or a DeepSpeed JSON's path), with a whole teacher where there is
    one.

    Args:
        accumulates: whether an optimizer step has several forward passes.
    """
    memory = _without_teacher(weights, step, recipe, zero, gpus, bf16, accumulates)
    teacher = weights.teacher
    if zero == "none" and bf16 and not recipe.adapter.rank:
        teacher *= 2  # fp32 as the weights of the student
    elif teacher and zero != "none" and read_deepspeed(zero)["zero_optimization"]["stage"] == 3:
        teacher = weights.held  # nothing can be exchanged in shards
    return replace(memory, weights=memory.weights + teacher)


def _without_teacher(
    weights: Weights, step: StepMemory, recipe: Recipe, zero: str, gpus: int, bf16: bool, accumulates: bool
) -> GpuMemory:
    size = weights.numbers
    width = 2 if bf16 else 4
    passing = weights.dequantized + step.peak
    if zero == "none":
        grown = bf16 and not recipe.adapter.rank  # fp32 weights under autocast, which keeps bf16 copies in the forward
        held = 2 * weights.held if grown else weights.held + (2 * size if bf16 else 0)
        gradients = 4.0 * size
        buffers = (gradients if gpus > 1 else 0) + (weights.held if grown else 0)
        return _worst(
            GpuMemory(held, gradients, weights.moments + weights.ema, buffers, 0), step, accumulates,
            scale=2 if bf16 else 1, passing=passing,
        )  # fmt: skip
    config = read_deepspeed(zero)
    stage, away, numbers = config["zero_optimization"]["stage"], offloads(config), _numbers(config)
    here = 0 if "optimizer" in away else 1  # how much of optimizer and gradients the GPU itself holds
    optimizer = (weights.moments + 4 * size + weights.ema) / gpus
    bucket = numbers.get("reduce_bucket_size", weights.hidden**2) * width  # allocated in full, however little trains
    cast = here * 4.0 * size / gpus  # the gradient in fp32, when activations are gone
    shard = weights.trained / gpus
    if stage == 3:
        live = min(numbers.get("stage3_max_live_parameters", _LIVE) * width + weights.largest, weights.held)
        kept = 0 if "param" in away else weights.held / gpus
        gathered = live if gpus > 1 or "param" in away else 0
        host = (weights.held / gpus - kept) + (1 - here) * (shard + optimizer)
        return GpuMemory(kept, here * shard, here * optimizer, bucket + gathered, max(passing, cast), host)
    if not here:  # gradients go over one by one, through a buffer of the largest, into fp32 and into what is summed up
        host = optimizer + 4 * size / gpus + (shard if accumulates else 0)
        return GpuMemory(weights.held, 0, 0, bucket + min(weights.largest, weights.trained), passing, host)
    if stage == 1:
        memory = GpuMemory(weights.held, weights.trained, optimizer, bucket, 0)
        return _worst(memory, step, accumulates, passing=passing, at_update=cast)
    return GpuMemory(weights.held, shard, optimizer, bucket, max(passing, cast))


def _worst(memory: GpuMemory, step: StepMemory, accumulates: bool, passing: float, scale: int = 1,
           at_update: float = 0) -> GpuMemory:  # fmt: skip
    """Gradients that stay: all there in the second forward pass; in a single one they come as activations go."""
    if accumulates:
        return replace(memory, activations=max(passing, at_update))
    more = step.peak_with_gradients - memory.gradients / scale  # gradients of the simulated step are in the peak
    return replace(memory, activations=max(passing - memory.gradients, more, at_update, 0))


def _numbers(config: dict) -> dict[str, int]:
    """The sizes a DeepSpeed file sets; those on "auto" are left to follow from the model."""
    options = config["zero_optimization"]
    return {key: value for key, value in options.items() if isinstance(value, int) and not isinstance(value, bool)}
