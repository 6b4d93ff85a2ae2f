"""LoRA adapters of a stage: low-rank layers in the language model, everything else as the recipe's modules say.

The model keeps its class and its names (`vlm/adapted_model.py`), so trainer, sharding and packing see an ordinary
model of which little trains; what it saves is one adapter folder with all that trained.
"""

import functools
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback

from llm.lora import is_adapter_parameter, lora_config
from training.freezing import NORM_CLASS, new_token_ids
from training.recipe import Recipe, RecipeError
from vlm.adapted_model import inject, load_weights, merge, record_of, tables_of, trained_state_dict
from vlm.adapter_folder import base_of, is_adapter


def check_output(recipe: Recipe) -> None:
    """Raise RecipeError if the result would lie beside one of the other kind: whole models and adapters in one folder
    would be loaded together."""
    kind, other = ("a whole model", "config.json") if recipe.adapter.rank else ("an adapter", "adapter_config.json")
    if (Path(recipe.output_dir) / other).is_file():
        raise RecipeError(
            f"output_dir = {recipe.output_dir} holds {kind} ({other}), and adapter.rank = {recipe.adapter.rank} would "
            "put the other kind beside it: choose another output_dir"
        )


def attach_adapters(model: nn.Module, recipe: Recipe) -> nn.Module:
    """The model with the adapters of `recipe.adapter`; without any when its rank is 0.

    Where `recipe.model` is an adapter folder (`model` is its base), that adapter trains on; with rank 0 it is merged.

    Raises:
        RecipeError: targets that cannot take adapters, or settings other than those of the adapter to go on with.
    """
    start = recipe.model if is_adapter(recipe.model) else None
    if not recipe.adapter.rank:
        return model if start is None else _merged(model, start)
    try:
        config = _config(model, recipe)
    except (ValueError, ImportError) as error:
        raise RecipeError(f"adapter: {error}") from error
    if start is not None:
        model.load_adapter(start, is_trainable=True)
        _check_same(model, config, recipe)
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        inject(model, config, base_of(recipe.model, getattr(model, "loaded_revision", None)))
    return model


def _config(model: nn.Module, recipe: Recipe):
    adapter = recipe.adapter
    return lora_config(model, adapter.rank, adapter.alpha, adapter.dropout, adapter.targets)


def _merged(model: nn.Module, source: str) -> nn.Module:
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise RecipeError(
            f"model = {source} is an adapter, adapter.rank = 0 merges it, and ZeRO-3 holds the base in pieces: write "
            f"the whole model with `radio-vlm merge {source} OUT` and set model=OUT, or set adapter.rank to train it on"
        )
    model.load_adapter(source)
    return merge(model)


def _check_same(model: nn.Module, wanted, recipe: Recipe) -> None:
    """The adapter that was loaded is the one the recipe describes."""
    found = model.peft_config["default"]
    pairs = {"rank": (wanted.r, found.r), "alpha": (wanted.lora_alpha, found.lora_alpha)}
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise RecipeError(
                f"adapter.{name} = {ours}, and the adapter in model = {recipe.model} has {theirs}: set "
                f"adapter.{name}={theirs} to train it on, or start from the result of `radio-vlm merge`"
            )
    layers = {name for name, module in model.named_modules(remove_duplicate=False) if hasattr(module, "lora_A")}
    if layers != set(wanted.target_modules):
        raise RecipeError(
            f"adapter.targets names {len(wanted.target_modules)} layers, and the adapter in model = {recipe.model} "
            f"sits on {len(layers)}: name the same ones to train it on, or start from the result of `radio-vlm merge`"
        )


def finish_adapters(model: nn.Module, processor, recipe: Recipe, args) -> None:
    """After freezing: note what else trains, since it belongs into the adapter folder, and give what trains fp32
    weights where no DeepSpeed keeps them."""
    if record_of(model) is None:
        return
    record = record_of(model)
    record.modules = sorted({*record.modules, *_trained_modules(model)})
    if model.get_input_embeddings().weight.requires_grad:
        ids = new_token_ids(model, processor.tokenizer)
        record.rows |= {name: sorted({*ids, *record.rows.get(name, ())}) for name in tables_of(model)}
    if args.bf16 and args.deepspeed is None:
        master_weights(model)


def master_weights(model: nn.Module) -> None:
    """fp32 for what trains: with plain bf16 weights small updates round to nothing. The forward runs under autocast.

    Of a quantized model the norms too, as in QLoRA (arXiv 2305.14314): they are what its rounding hurts most.
    """
    quantized = getattr(model, "is_quantized", False)
    for module in model.modules():
        is_norm = quantized and NORM_CLASS.search(type(module).__name__)
        for parameter in module.parameters(recurse=False):
            if (parameter.requires_grad or is_norm) and parameter.is_floating_point():
                parameter.data = parameter.data.float()


def _trained_modules(model: nn.Module) -> list[str]:
    """Names of the modules that hold everything that trains in full, as few and as small as that allows."""
    table = model.get_input_embeddings().weight

    def trained(name: str, parameter: nn.Parameter) -> bool:
        return parameter.requires_grad and parameter is not table and not is_adapter_parameter(f"{name}.")

    def cover(name: str, module: nn.Module) -> list[str]:
        flags = [trained(inner, parameter) for inner, parameter in module.named_parameters(prefix=name)]
        if not any(flags):
            return []
        own = any(trained(f"{name}.{inner}", parameter) for inner, parameter in module.named_parameters(recurse=False))
        if all(flags) or own:
            return [name]
        return [found for child, part in module.named_children() for found in cover(f"{name}.{child}", part)]

    return [found for child, part in model.named_children() for found in cover(child, part)]


def load_checkpoint(model: nn.Module, folder: str) -> None:
    """Put the weights of a checkpoint's adapter back into the model (a run without DeepSpeed resumes)."""
    load_weights(model, folder)


def gather_adapter(engine, model: nn.Module) -> dict[str, torch.Tensor]:
    """What the adapter folder holds, whole and on the CPU, of a model that ZeRO-3 keeps in pieces. Collective."""
    engine.optimizer.checkpoint_event_prologue()  # layers fetched ahead of their use are let go first
    state = trained_state_dict(model)
    engine.optimizer.checkpoint_event_epilogue()
    return state


class SmallCheckpoints(TrainerCallback):
    """DeepSpeed's checkpoints without the frozen base, which is on disk already."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        engine = self.trainer.model_wrapped
        if self.trainer.is_deepspeed_enabled and record_of(self.trainer.model) is not None:
            engine.save_checkpoint = functools.partial(engine.save_checkpoint, exclude_frozen_parameters=True)
