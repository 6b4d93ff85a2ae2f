"""The model of a stage on the meta device: from its folder, or, before anything is built, from the `build:` lines of
the recipe folder. Nothing is downloaded.
"""

from pathlib import Path

import torch
from torch import nn

from llm.prepare import prepare_language_model
from training.recipe import Recipe, RecipeError

_BUILD = ("preset", "vision", "llm", "tokenizer", "projector", "geometry", "video", "features", "out", "dtype", "seed")

def planned_model(recipe: Recipe, build: dict | None, bf16: bool) -> tuple[nn.Module, object]:
    """(model in training mode on the meta device, processor) as the stage would start with.

    Args:
        build: what `radio-vlm new` gets: vision, llm, projector, geometry, video, features; or preset.
        bf16: whether weights are bf16 (those that always stay fp32 excepted).

    Raises:
        RecipeError: neither a model folder nor `build`, or names that are not known here.
    """
    from vlm.adapter_folder import is_adapter, read_base

    folder = read_base(recipe.model).name if is_adapter(recipe.model) else recipe.model
    if folder and (Path(folder) / "config.json").is_file():
        model, processor = _of_folder(folder)
    elif build:
        model, processor = of_parts(build)
    else:
        raise RecipeError(
            f"model = {recipe.model or '(empty)'} is no folder here, so its sizes are not known: put `build: {{vision: "
            "..., llm: ...}` into a pipeline.yaml beside the recipe, or give model=FOLDER"
        )
    if bf16:
        hold_in_bf16(model)
    model.language_model.config.use_cache = False
    prepare_language_model(model.language_model)
    return model.train(), processor


def attach_planned_adapters(model: nn.Module, recipe: Recipe) -> None:
    """The low-rank layers of `recipe.adapter`, as `training.adapters` attaches them to a model with weights."""
    if not recipe.adapter.rank:
        return
    from llm.lora import lora_config
    from vlm.adapted_model import inject
    from vlm.adapter_folder import AdapterBase

    adapter = recipe.adapter
    try:
        config = lora_config(model, adapter.rank, adapter.alpha, adapter.dropout, adapter.targets)
    except (ValueError, ImportError) as error:
        raise RecipeError(f"adapter: {error}") from error
    inject(model, config, AdapterBase(recipe.model, None, None))
    model.to("meta")


def hold_in_bf16(model: nn.Module) -> None:
    """Weights in bf16 as `from_pretrained(dtype=bfloat16)` gives them: some stay fp32 in every checkpoint."""
    kept = tuple(model._keep_in_fp32_modules_strict or ())
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if any(word in name for word in kept) else torch.bfloat16)


def _of_folder(folder: str) -> tuple[nn.Module, object]:
    from transformers import AutoProcessor

    from vlm.configuration_radio_vlm import RadioVLMConfig
    from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration

    config = RadioVLMConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = RadioVLMForConditionalGeneration(config)
    return model, AutoProcessor.from_pretrained(folder)


def of_parts(build: dict, device: str = "meta") -> tuple[nn.Module, object]:
    """(model with random weights on `device`, processor with a stand-in for the tokenizer) of `build:` lines."""
    from encoders.presets import VISION_PRESETS
    from llm.presets import LLM_PRESETS
    from llm.tiny_tokenizer import build_byte_tokenizer
    from vlm.build import build_vlm
    from vlm.errors import RadioVLMError
    from vlm.geometry import GEOMETRIES

    if unknown := sorted(set(build) - set(_BUILD)):
        raise RecipeError(f"build: unknown key {', '.join(unknown)}; known: {', '.join(_BUILD)}")
    preset = build.get("preset")
    vision = _config_of(build.get("vision", preset), VISION_PRESETS, "vision")
    text = _config_of(build.get("llm", preset), LLM_PRESETS, "llm")
    geometry = build.get("geometry")
    if isinstance(geometry, str):
        if geometry not in GEOMETRIES:
            raise RecipeError(f"build: geometry = {geometry} is not one of {', '.join(GEOMETRIES)}")
        geometry = dict(GEOMETRIES[geometry])
    options = {name: build.get(name) for name in ("projector", "video", "features")}
    try:
        with torch.device(device):
            return build_vlm(vision, text, build_byte_tokenizer(), geometry=geometry, **options)
    except (RadioVLMError, ValueError) as error:
        raise RecipeError(f"build: {error}") from error


def _config_of(name: str | None, presets: dict, key: str):
    """Configuration of a preset, of its hub id, or of a folder."""
    for known, preset in presets.items():
        if name and name.lower() in (known.lower(), (preset.hub_id or known).lower()):
            return preset.config()
    if name and Path(name).is_dir():
        from transformers import AutoConfig

        import encoders.radio_config  # noqa: F401  (registers the encoder's configuration)

        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    raise RecipeError(
        f"build: {key} = {name} is neither a folder nor known by name, and nothing is downloaded for a plan; known: "
        f"{', '.join(presets)}"
    )
