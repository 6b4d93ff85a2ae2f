"""From what `--model` says to a backend: our checkpoints, any image-text-to-text model, an OpenAI-like endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.backends.base import Backend
from vlm.model_name import check_device, check_dtype, check_model

ENDPOINT = "openai:"


def open_backend(
    model: str,
    *,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    pruning_rate: float | None = None,
    api_key: str | None = None,
) -> Backend:
    """The backend for `model`.

    Args:
        model: a checkpoint folder (an adapter's too), a hub id, or `openai:MODEL@BASE_URL` for an endpoint. A causal
            language model is the text-only baseline.
        pruning_rate: share of video tokens left out (EVS), where the processor can.

    Raises ValueError or OSError for what cannot be opened.
    """
    if model.startswith(ENDPOINT):
        from eval.backends.endpoint import EndpointBackend

        name, _, url = model.removeprefix(ENDPOINT).partition("@")
        if not name or not url.startswith(("http://", "https://")):
            raise ValueError(f"--model {model}: an endpoint is written openai:MODEL@http://HOST:PORT/v1")
        if pruning_rate is not None:
            raise ValueError("--pruning-rate: an endpoint samples no video tokens here; say it to the server")
        return EndpointBackend(url, name, api_key)
    loaded, processor = load(model, device, dtype, trust_remote_code)
    if pruning_rate is not None:
        if not hasattr(processor, "set_pruning_rate"):
            raise ValueError(f"--pruning-rate: the processor of {model} cannot prune videos")
        processor.set_pruning_rate(pruning_rate)
    if hasattr(processor, "encode") and hasattr(processor, "collate"):
        from eval.backends.radio import RadioBackend

        return RadioBackend(loaded, processor, fingerprint_of(model, loaded))
    from eval.backends.transformers_chat import TransformersBackend

    return TransformersBackend(loaded, processor, fingerprint_of(model, loaded))


def fingerprint_of(model: str, loaded) -> str | None:
    """Of a folder its files', of a hub id the commit that was downloaded."""
    from eval.hashing import folder_fingerprint

    if Path(model).is_dir():
        return folder_fingerprint(model)
    return getattr(loaded.config, "_commit_hash", None)


def load(model_dir: str, device: str | None, dtype: str, trust_remote_code: bool):
    """Model (in evaluation mode, on its device) and processor of a checkpoint, through the Auto classes.

    An adapter folder opens as its base with the adapter on it, as everywhere in this package. For a causal language
    model the processor is its tokenizer.
    """
    import torch
    from transformers import AutoConfig, AutoProcessor

    import vlm  # noqa: F401  registers our classes with the Auto ones
    from vlm.adapter_folder import whole_model
    from vlm.special_tokens import check_special_tokens

    check_model(model_dir)
    check_dtype(dtype)
    check_device(device)
    base = whole_model(model_dir)
    trust = {"trust_remote_code": trust_remote_code}
    try:
        opener = auto_class(model_dir, AutoConfig.from_pretrained(base, **trust))
        try:
            processor = AutoProcessor.from_pretrained(model_dir, **trust)
        except (OSError, ValueError):
            if base == model_dir:
                raise
            processor = AutoProcessor.from_pretrained(base, **trust)  # an adapter of other tools holds weights only
        model = opener.from_pretrained(model_dir, dtype=dtype, **trust)
    except ImportError as error:
        raise ValueError(f"--model {model_dir}: {missing_package(error)}") from error
    if model.config.model_type == "radio_vlm":
        check_special_tokens(model.config, processor.tokenizer)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), processor


def auto_class(name: str, config: Any):
    """The Auto class that opens a model of this configuration, one that sees before one that only reads.

    Raises ValueError for models that answer no questions.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM
    from transformers.models.auto import modeling_auto as auto

    choices = (
        (AutoModelForImageTextToText, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
        (AutoModelForMultimodalLM, auto.MODEL_FOR_MULTIMODAL_LM_MAPPING),
        (AutoModelForCausalLM, auto.MODEL_FOR_CAUSAL_LM_MAPPING),
    )
    remote = getattr(config, "auto_map", None) or {}
    for found, mapping in choices:
        if type(config) in mapping or found.__name__ in remote:
            return found
    raise ValueError(
        f"--model {name}: a `{config.model_type}` model is neither an image-text-to-text nor a causal language model "
        "that transformers can open; where it brings its own code along, --trust-remote-code runs it"
    )


def missing_package(error: ImportError) -> str:
    """Which package to install, in one line, from transformers' paragraph or Python's own words."""
    words = str(error)
    if "torchvision" in words.lower():
        return "its processor needs torchvision, which is not installed: pip install torchvision (built for your torch)"
    return " ".join(words.split())
