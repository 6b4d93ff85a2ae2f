"""What a stage starts from: model and processor of a folder or hub id."""

import re
from pathlib import Path

import torch
from torch import nn

from llm.prepare import prepare_language_model
from training.adapters import check_output
from training.quantization import check_quantization, quantization_options
from training.recipe import Recipe, RecipeError
from vlm.adapter_folder import AdapterBase, is_adapter, read_base

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_model(recipe: Recipe, args) -> tuple[nn.Module, object]:
    """Model and processor of `recipe.model`, in the precision of the stage, without a generation cache.

    Of an adapter folder the base is loaded; `training.adapters.attach_adapters` puts the adapter onto it.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import vlm  # noqa: F401  (registers the classes with the Auto* factories)
    from vlm.special_tokens import check_special_tokens

    if not HUB_ID.fullmatch(recipe.model) and not Path(recipe.model).is_dir():
        raise RecipeError(
            f"model = {recipe.model} is not a folder: run the earlier stage first, or build one with `radio-vlm new`"
        )
    check_output(recipe)
    check_quantization(recipe)
    options = {"dtype": weight_dtype(recipe, args)} | quantization_options(recipe)
    if recipe.train.attention:
        options["attn_implementation"] = recipe.train.attention
    base = read_base(recipe.model) if is_adapter(recipe.model) else AdapterBase(recipe.model)
    try:
        model = AutoModelForImageTextToText.from_pretrained(base.name, revision=base.revision, **options)
    except OSError as error:
        raise RecipeError(f"model = {recipe.model} cannot be loaded: {str(error).splitlines()[0]}") from error
    processor = AutoProcessor.from_pretrained(recipe.model)
    if not hasattr(processor, "tokenizer"):
        raise RecipeError(f"model = {recipe.model} has no processor beside it; build the folder with `radio-vlm new`")
    if model.config.model_type == "radio_vlm":
        check_special_tokens(model.config, processor.tokenizer)
    text = model.config.get_text_config()
    if hasattr(text, "use_cache"):
        text.use_cache = False
    prepare_language_model(model.language_model)
    return model, processor


def weight_dtype(recipe: Recipe, args) -> torch.dtype:
    """What weights are loaded in. Under bf16 DeepSpeed keeps fp32 copies of what trains, so the model is bf16; without
    it the weights themselves are fp32 and the forward runs under autocast. A base below adapters does not move: bf16,
    and `finish_adapters` makes what trains fp32."""
    if not args.bf16:
        return torch.float32
    return torch.bfloat16 if args.deepspeed is not None or recipe.adapter.rank else torch.float32
