"""LoRA on language models through peft: which layers (the family says), what would go wrong on others, and a check that
every adapter learns. peft by itself knows no hybrids: it refuses `out_proj` of some and lets it be ignored in others,
misses that a convolution runs through its weight, and merges two adapters into one shared weight.

    model = get_peft_model(prepare_language_model(model), lora_config(model))
"""

import functools
from collections.abc import Iterator

import torch
from torch import nn

from llm.family import LLMFamily, family_of
from llm.prepare import is_prepared

# Last names of small linear layers that choose experts; an adapter there moves the balance that training set up.
_ROUTERS = ("router", "gate", "shared_expert_gate")


def _peft():
    try:
        import peft
    except ImportError as error:
        raise ImportError(f"LoRA needs peft ({error}): pip install peft") from error
    return peft


def language_model_of(model: nn.Module) -> tuple[nn.Module, str]:
    """`(language model, prefix of its module names)`: the model itself, or what a VLM holds as `language_model`."""
    inner = getattr(model, "language_model", None)
    language, prefix = (model, "") if inner is None else (inner, "language_model.")
    config = getattr(language, "config", None)
    if config is None or config.get_text_config() is not config or language.get_output_embeddings() is None:
        raise ValueError(
            f"{type(model).__name__} is no causal language model, nor a VLM that holds one as `language_model`: "
            "LoRA's targets are declared for language models; give others to peft.LoraConfig by name"
        )
    return language, prefix


def allow_out_proj() -> None:
    """Let peft put adapters on `out_proj`, and load them; twice is once. `lora_config` calls it.

    peft refuses the name for some model types, because a fused kernel of transformers skips the layer's forward while
    training. A prepared model calls it always, and any model does when it does not train.
    """
    _peft()
    from peft.tuners import tuners_utils

    name = "_check_lora_target_modules_mamba"
    original = getattr(tuners_utils, name, None)
    if original is None or hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def check(peft_config, model: nn.Module, target_name: str) -> None:
        if target_name != "out_proj" or not (is_prepared(model) or peft_config.inference_mode):
            original(peft_config, model, target_name)

    setattr(tuners_utils, name, check)


def lora_config(
    model: nn.Module,
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.0,
    targets: list[str] | tuple[str, ...] | str | None = None,
    **options,
):
    """A `peft.LoraConfig` for `peft.get_peft_model`.

    Args:
        model: A prepared causal language model, or a VLM whose `language_model` is one; nothing else of it is touched.
        rank: Of the two factors. alpha: the product counts `alpha / rank`. dropout: of an adapter's input.
        targets: Last parts of names of linear layers; None: those of the family, "all-linear": all. Neither takes in
            the output head, routers, fused expert tensors, or what the family refuses.
        options: Any other field of `peft.LoraConfig`, as `modules_to_save=["multi_modal_projector"]`.

    Raises:
        ValueError: a target that matches nothing or would be wrong (the reason is told); a model that is not prepared
            and would ignore adapters on `out_proj`, is no language model, or has adapters already.
        ImportError: peft is missing.
    """
    peft = _peft()
    language, prefix = language_model_of(model)
    if any(hasattr(module, "lora_A") for module in model.modules()):
        raise ValueError(f"{type(model).__name__} has LoRA adapters already: merge or unload them first")
    family = family_of(language)
    # A module that is used in several places (Zamba2) has several names; a model from disk needs all of them.
    linears = {n: m for n, m in language.named_modules(remove_duplicate=False) if isinstance(m, nn.Linear)}
    names = _chosen(language, family, linears, [targets] if isinstance(targets, str) else targets)
    _check_shared(language, linears, names)
    _check_prepared(language, family, names)
    allow_out_proj()
    if not prefix:
        options.setdefault("task_type", "CAUSAL_LM")
    names = [prefix + name for name in names]
    return peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, **options)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _chosen(language, family: LLMFamily, linears: dict[str, nn.Linear], targets) -> list[str]:
    """Full names, in the order of the model."""
    head = language.get_output_embeddings()
    default = [
        name for name, module in linears.items()
        if module is not head and _last(name) not in (*_ROUTERS, *family.lora_refused) and ".router." not in name
    ]  # fmt: skip
    if targets is None and family.lora_targets:
        default = [name for name in default if any(_matches(name, target) for target in family.lora_targets)]
    if targets is None or list(targets) == ["all-linear"]:
        if not default:
            raise ValueError(f"{type(language).__name__} has no nn.Linear but its head: give layers to peft by name")
        return default
    if not targets:
        raise ValueError("targets is empty: name linear layers, or leave it out for those of the family")
    for target in targets:
        _check_target(language, family, linears, target)
    return [name for name in linears if any(_matches(name, target) for target in targets)]


def _check_target(language, family: LLMFamily, linears: dict[str, nn.Linear], target: str) -> None:
    matched = [name for name in linears if _matches(name, target)]
    for name in [target, *matched]:
        if _last(name) in family.lora_refused:
            reason = family.lora_refused[_last(name)]
            raise ValueError(f"LoRA target {target!r} is refused for {family.model_type}: {reason}")
    if matched:
        return
    others = [type(module).__name__ for name, module in language.named_modules() if _matches(name, target)]
    tensors = [tuple(tensor.shape) for name, tensor in language.named_parameters() if _matches(name, target)]
    reason = "matches no layer"
    if others:
        reason = f"is a {others[0]}, no linear layer"
    elif tensors:
        reason = f"is a tensor {tensors[0]} by itself (fused experts are), no linear layer"
    known = sorted({_last(name) for name in linears})
    raise ValueError(f"LoRA target {target!r} {reason} of {type(language).__name__}; linear layers: {', '.join(known)}")


def _check_shared(language: nn.Module, linears: dict[str, nn.Linear], names: list[str]) -> None:
    """Two layers with one weight would each add their adapter to it when merged."""
    users: dict[int, list[str]] = {}
    for name, module in language.named_modules():  # one name a module
        if (weight := module._parameters.get("weight")) is not None:
            users.setdefault(id(weight), []).append(name)
    for name in names:
        sharing = users[id(linears[name].weight)]
        if len(sharing) > 1:
            fix = "leave it out, or untie it" if is_prepared(language) else "llm.prepare_language_model(model) first"
            other = next(other for other in sharing if other != name)
            raise ValueError(
                f"LoRA target {name!r} shares its weight with {other!r}, so merging an adapter would change both: {fix}"
            )


def _check_prepared(language: nn.Module, family: LLMFamily, names: list[str]) -> None:
    for name in names:
        mixer = language.get_submodule(name.rpartition(".")[0])
        if _last(name) == "out_proj" and type(mixer).__name__ in family.swaps and not is_prepared(mixer):
            raise ValueError(
                f"LoRA target {name!r} needs llm.prepare_language_model(model) first: transformers' own "
                f"{type(mixer).__name__} may skip its forward while training, and the adapter with it; or leave out "
                "'out_proj'"
            )


def is_adapter_parameter(name: str) -> bool:
    """Whether a parameter's name is that of a LoRA factor, `<layer>.lora_A.<adapter>.weight` or `lora_B`."""
    return ".lora_A." in name or ".lora_B." in name


def lora_pairs(model: nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """`(name of the layer, A (r, in), B (out, r))` of every active adapter."""
    for name, module in model.named_modules():
        if not isinstance(getattr(module, "lora_A", None), nn.ModuleDict):
            continue
        for adapter in module.active_adapters:
            if adapter in module.lora_A:
                yield name, module.lora_A[adapter].weight, module.lora_B[adapter].weight


def _whole(parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`(value, gradient or None)`; DeepSpeed keeps both in pieces, which all ranks must ask for together."""
    if not hasattr(parameter, "ds_id") and not hasattr(parameter, "_hp_mapping"):
        return parameter.detach(), parameter.grad
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad

    return safe_get_full_fp32_param(parameter), safe_get_full_grad(parameter)


def check_lora_gradients(model: nn.Module) -> int:
    """Between the first backward and the optimizer's step: does every adapter learn?

    An adapter is `B @ A` with `B = 0` at the start, so `A` has a gradient of exactly zero until `B` has moved: `B` must
    have a gradient other than zero, and `A` one that is not None, and other than zero wherever `B` is. Called at step 1
    and again at step 2 it has seen all of them at work. With DeepSpeed every rank must call it.

    Returns:
        The number of adapters.

    Raises:
        ValueError: no adapters at all. RuntimeError: adapters that learn nothing, listed.
    """
    dead, count = [], 0
    for name, *pair in lora_pairs(model):
        count += 1
        (_, of_a), (b, of_b) = map(_whole, pair)
        for letter, gradient, must_move in (("A", of_a, bool(b.any())), ("B", of_b, True)):
            if gradient is None:
                dead.append(f"{name}.lora_{letter}: no gradient")
            elif not gradient.isfinite().all():
                dead.append(f"{name}.lora_{letter}: a gradient that is not finite")
            elif must_move and not gradient.any():
                dead.append(f"{name}.lora_{letter}: a gradient of zero")
    if not count:
        raise ValueError(f"{type(model).__name__} has no LoRA adapter: build it with peft.get_peft_model")
    if dead:
        listed = "\n  ".join(dead[:20]) + (f"\n  and {len(dead) - 20} more" if len(dead) > 20 else "")
        raise RuntimeError(
            f"LoRA adapters that learn nothing (of {count}):\n  {listed}\n"
            "Was backward called, and not yet zero_grad? Did the batch reach these layers? Is their forward called at "
            "all (a convolution's is not, nor that of layers inside fused kernels: llm.lora.lora_config refuses them)?"
        )
    return count
