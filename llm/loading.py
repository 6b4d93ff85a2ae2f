"""Opens a causal language model ready to be trained: any folder, hub id, preset name or configuration."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from llm.pattern import check_pattern
from llm.prepare import prepare_language_model
from llm.presets import LLM_PRESETS


def _check_written_pattern(source: str, options: dict) -> None:
    """transformers fails on an unknown letter with a bare KeyError."""
    pattern = PreTrainedConfig.get_config_dict(source, **options)[0].get("hybrid_override_pattern")
    if pattern is not None:
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None


def load_language_model(
    folder_or_id_or_config: str | Path | PreTrainedConfig,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """A causal language model of transformers, prepared by `llm.prepare.prepare_language_model`.

    Args:
        folder_or_id_or_config: A folder or hub id (its weights are loaded), a name of `llm.presets`, or a configuration
            (random weights).
        dtype: Of the weights; None: as stored (folder or id), the configuration's or float32 (configuration).
        attn_implementation: As in transformers; None and "sdpa" become sample-by-sample attention where a family packs.

    The forward of the result takes `seq_idx` (B, L) beside `position_ids`; see `llm.causal_lm.PackedCausalLM.forward`.

    Raises:
        ValueError: a layer pattern with unknown letters. OSError: no such folder or id (transformers' message).
    """
    source = folder_or_id_or_config
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    preset = LLM_PRESETS.get(source) if isinstance(source, str) and not Path(source).exists() else None
    if preset is not None:
        source = preset.hub_id or preset.config()
    if isinstance(source, PreTrainedConfig):
        model = AutoModelForCausalLM.from_config(source, dtype=dtype or source.dtype or torch.float32, **options)
    else:
        _check_written_pattern(str(source), {})
        config = AutoConfig.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, config=config, dtype=dtype or "auto", **options)
    return prepare_language_model(model)
