"""Language model presets have the exact sizes of the published models, counted without allocating them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm.presets import LLM_PRESETS


@pytest.mark.parametrize("name", LLM_PRESETS)
def test_preset_has_the_exact_parameter_count(name):
    preset = LLM_PRESETS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(preset.config())
    assert sum(p.numel() for p in model.parameters()) == preset.parameters


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("Nemotron-H-4B", (24, 4, 24)),
        ("Nemotron-H-8B", (24, 4, 24)),
        ("Nemotron-Nano-9B-v2", (27, 4, 25)),
        ("Nemotron-Nano-12B-v2", (28, 6, 28)),
    ],
)
def test_layer_pattern_has_the_published_blocks(name, blocks):
    pattern = LLM_PRESETS[name].config().hybrid_override_pattern
    assert (pattern.count("M"), pattern.count("*"), pattern.count("-")) == blocks


def test_random_presets_bring_a_tokenizer_and_others_a_hub_id():
    for name, preset in LLM_PRESETS.items():
        assert (preset.hub_id is None) == (preset.tokenizer is not None), name
    tiny = LLM_PRESETS["tiny"]
    assert len(tiny.tokenizer()) <= tiny.config().vocab_size
    assert tiny.tokenizer().eos_token_id == tiny.config().eos_token_id
