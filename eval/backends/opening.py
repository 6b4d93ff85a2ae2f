"""From what `--model` says to a backend: our checkpoints, any image-text-to-text model, an OpenAI-like endpoint."""

from __future__ import annotations

from pathlib import Path

from eval.backends.base import Backend

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
        model: a checkpoint folder, a hub id, or `openai:MODEL@BASE_URL` for an endpoint.
        pruning_rate: share of video tokens left out (EVS), where the processor can.

    Raises ValueError or OSError for what cannot be opened.
    """
    if model.startswith(ENDPOINT):
        from eval.backends.endpoint import EndpointBackend

        name, _, url = model.removeprefix(ENDPOINT).partition("@")
        if not name or not url.startswith(("http://", "https://")):
            raise ValueError(f"--model {model}: an endpoint is written openai:MODEL@http://HOST:PORT/v1")
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
    """Model (in evaluation mode, on its device) and processor of a checkpoint, through the Auto classes."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import vlm  # noqa: F401  registers our classes with the Auto ones
    from vlm.special_tokens import check_special_tokens

    if not Path(model_dir).is_dir() and (model_dir.startswith((".", "/", "~")) or model_dir.count("/") != 1):
        raise ValueError(f"--model: no folder {model_dir}")  # the hub would complain about the form of an id
    processor = AutoProcessor.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
    model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=dtype, trust_remote_code=trust_remote_code)
    if model.config.model_type == "radio_vlm":
        check_special_tokens(model.config, processor.tokenizer)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), processor
