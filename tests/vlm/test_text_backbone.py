"""The fixes of native language models: time step limits, ties."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.helpers.model_inputs import batch, sample, text_config, tiny_model
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration
from vlm.text_backbone import fix_time_step_limit, prepare_text_backbone


def mixers(model) -> list:
    return [module for module in model.modules() if hasattr(module, "time_step_limit")]


def small_steps(model) -> None:
    """Time steps around 1e-4 = softplus(-9.2), far below the 0.001 that transformers clamps to."""
    with torch.no_grad():
        for mixer in mixers(model):
            mixer.dt_bias.fill_(-9.2)
            mixer.in_proj.weight[-mixer.num_heads :] *= 0.01
            mixer.D.mul_(0.1)


def test_without_the_fix_small_steps_are_lost():
    model = tiny_model(text_initializer_range=0.4)
    small_steps(model)
    inputs = batch(sample(30, (2, 4), 30))
    with torch.no_grad():
        right = model(**inputs).logits
        for mixer in mixers(model):
            assert mixer.time_step_limit == (0.0, float("inf"))
            mixer.time_step_limit = (mixer.config.time_step_min, float("inf"))  # what transformers 5.23 sets
        wrong = model(**inputs).logits
    assert (right - wrong).abs().max() > 1e-3
    assert fix_time_step_limit(model.language_model) == 2
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, right)


def test_with_the_fix_prefill_equals_decoding():
    """Decode steps never clamp, so a clamped prefill disagrees with its own continuation."""
    model = tiny_model(text_initializer_range=0.4)
    small_steps(model)
    ids = batch(sample(24))["input_ids"]
    with torch.no_grad():
        whole = model(input_ids=ids).logits[:, -1]
        begun = model(input_ids=ids[:, :-6], use_cache=True)
        for position in range(-6, 0):
            step = ids[:, position : position + 1 or None]
            begun = model(input_ids=step, past_key_values=begun.past_key_values, use_cache=True)
    torch.testing.assert_close(begun.logits[:, -1], whole, atol=1e-5, rtol=1e-4)


def test_limits_hold_after_construction_and_load(tmp_path):
    model = tiny_model(text_time_step_limit=(0.0, 0.5))
    model.save_pretrained(tmp_path)
    again = RadioVLMForConditionalGeneration.from_pretrained(tmp_path)
    for opened in (model, again):
        assert [mixer.time_step_limit for mixer in mixers(opened)] == [(0.0, 0.5)] * 2


def test_other_families_are_left_alone():
    bamba = AutoModelForCausalLM.from_config(text_config("bamba"))
    before = [mixer.time_step_limit for mixer in mixers(bamba)]
    assert fix_time_step_limit(bamba) == 0
    assert [mixer.time_step_limit for mixer in mixers(bamba)] == before and before


@pytest.mark.parametrize("family", ["nemotron_h", "llama"])
def test_tied_means_tied(family):
    model = AutoModelForCausalLM.from_config(text_config(family, tie_word_embeddings=True))
    prepare_text_backbone(prepare_text_backbone(model))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    untied = prepare_text_backbone(AutoModelForCausalLM.from_config(text_config(family)))
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight
