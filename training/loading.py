"""What a stage starts from: model and processor of a folder or hub id."""

from pathlib import Path

import torch
from torch import nn

from llm.prepare import prepare_language_model
from training.recipe import Recipe, RecipeError


def load_model(recipe: Recipe, args) -> tuple[nn.Module, object]:
    """Model and processor of `recipe.model`, in the precision of the stage, without a generation cache."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import vlm  # noqa: F401  (registers the classes with the Auto* factories)
    from vlm.special_tokens import check_special_tokens

    if recipe.model.count("/") != 1 and not Path(recipe.model).is_dir():
        raise RecipeError(
            f"model = {recipe.model} is not a folder: run the earlier stage first, or build one with `radio-vlm new`"
        )
    options = {"dtype": torch.bfloat16 if args.bf16 else torch.float32}
    if recipe.train.attention:
        options["attn_implementation"] = recipe.train.attention
    model = AutoModelForImageTextToText.from_pretrained(recipe.model, **options)
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
