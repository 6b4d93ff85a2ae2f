"""Opens a causal language model ready to be trained: any folder, hub id, preset name or configuration. Code that comes
with a checkpoint is never run.
"""

import copy
import os
from difflib import get_close_matches
from pathlib import Path

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from llm.family import family_of
from llm.kernels import find_kernel
from llm.pattern import check_pattern
from llm.prepare import prepare_language_model
from llm.presets import LLM_PRESETS

PATTERNS = ("hybrid_override_pattern", "mtp_hybrid_override_pattern")


def load_language_model(
    folder_or_id_or_config: str | Path | PreTrainedConfig,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """A causal language model of transformers, prepared by `llm.prepare.prepare_language_model`.

    Args:
        folder_or_id_or_config: A folder or hub id (its weights are loaded), a name of `llm.presets`, or a configuration
            (random weights).
        dtype: Of the weights; None or "auto": as stored (folder or id), the configuration's or float32 (configuration).
        attn_implementation: As in transformers; None and "sdpa" become sample-by-sample attention where a family packs.

    The forward of the result takes `seq_idx` (B, L) beside `position_ids`; see `llm.causal_lm.PackedCausalLM.forward`.

    Raises:
        ValueError: a layer pattern with unknown letters, no causal language model, a model that exists only as code
            beside its weights, an unknown dtype. OSError: no such folder or id.
    """
    source = folder_or_id_or_config
    dtype = _checked_dtype(dtype)
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    preset = LLM_PRESETS.get(source) if isinstance(source, str) and not Path(source).exists() else None
    if preset is not None:
        source = preset.hub_id or preset.config()
    if preset is None and isinstance(source, str) and "/" not in source and not Path(source).exists():
        near = get_close_matches(source, LLM_PRESETS, cutoff=0.8)
        if near:
            raise OSError(f"cannot open language model {source!r}; did you mean the preset {near[0]!r}?")
    if isinstance(source, PreTrainedConfig):
        _check_config(source, "this configuration")
        config = copy.deepcopy(source)  # transformers would write dtype and attention into the caller's
        dtype = config.dtype or torch.float32 if dtype in (None, "auto") else dtype
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False, **options)
    elif isinstance(source, str | os.PathLike):
        source = str(source)
        options |= {"config": _read_config(source), "dtype": dtype or "auto", "trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(source, **options)
    else:
        raise TypeError(f"a language model is a folder, a hub id, a preset name or a configuration, not {source!r}")
    for name in family_of(model).kernels:
        find_kernel(name)  # one that is installed but broken is told now, not at the first step on a GPU
    return prepare_language_model(model)


def _checked_dtype(dtype: torch.dtype | str | None) -> torch.dtype | str | None:
    if not isinstance(dtype, str) or dtype == "auto":
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype {dtype!r} is none of torch: give float32, bfloat16, float16 or auto")
    return found


def _read_config(source: str) -> PreTrainedConfig:
    """The configuration of a folder or hub id; what transformers would tell in other words, or ask, is told here."""
    try:
        written = PreTrainedConfig.get_config_dict(source)[0]
    except OSError as error:
        what = "its config.json"
        if not Path(source).is_dir():
            what = f"it is no folder and no preset ({', '.join(LLM_PRESETS)}), and as a hub id it"
        raise OSError(f"cannot open language model {source!r}: {what} cannot be read: {error}") from error
    if not written:
        raise OSError(f"cannot open language model {source!r}: there is no config.json in it")
    model_type = written.get("model_type")
    if "auto_map" in written and model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{source}: model_type {model_type!r} is unknown to transformers and exists only as code beside the "
            "weights (auto_map in config.json), which is never run here; use a version of transformers that has it"
        )
    for key in PATTERNS:
        if written.get(key) is not None:  # transformers meets an unknown letter with a bare KeyError
            try:
                check_pattern(written[key], key)
            except ValueError as error:
                raise ValueError(f"{source}, config.json: {error}") from None
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # validators of transformers raise their own kinds
        raise ValueError(f"{source}, config.json: {error}") from error
    _check_config(config, source)
    return config


def _check_config(config: PreTrainedConfig, where: str) -> None:
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{where}: transformers has no causal language model of model_type {config.model_type!r}")
    if config.model_type == "nemotron_h":
        check_pattern(config.hybrid_override_pattern)
