"""QLoRA: the frozen language model in 4 or 8 bits, encoder and projector as they are (arXiv 2305.14314)."""

import importlib.util

import torch

from training.recipe import Recipe, RecipeError


def check_quantization(recipe: Recipe) -> None:
    """Raise RecipeError where `adapter.quantize` cannot run; before anything is loaded."""
    if recipe.adapter.quantize is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"adapter.quantize = {recipe.adapter.quantize} needs bitsandbytes: pip install bitsandbytes, or leave "
            "adapter.quantize out to train adapters on the unquantized model"
        )
    if not torch.cuda.is_available():
        raise RecipeError(
            f"adapter.quantize = {recipe.adapter.quantize} needs a GPU and there is none here: leave adapter.quantize "
            "out to train adapters on the unquantized model"
        )


def quantization_options(recipe: Recipe) -> dict:
    """Arguments of `from_pretrained` for `adapter.quantize`; {} without it. The model's class keeps encoder, projector
    and head out (`vlm/quantized_loading.py`)."""
    if recipe.adapter.quantize is None:
        return {}
    from transformers import BitsAndBytesConfig

    if recipe.adapter.quantize == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}
