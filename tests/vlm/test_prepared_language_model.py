"""A VLM with a language model prepared by `llm.prepare_language_model`: same function, rows apart, same files."""

import copy
import json

import pytest
import torch

from llm import families, prepare_language_model
from tests.helpers.model_inputs import IMAGE, VIDEO, batch, mixed_samples, tiny_config
from vlm.configuration_radio_vlm import RadioVLMConfig
from vlm.errors import RadioVLMError
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration

FAMILIES = list(families())
# what belongs to a row as a whole, not to its samples
NO_ROW_LOSS = dict(output_router_logits=False, z_loss_coefficient=0.0)
GREEDY = dict(max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0)


def both(family: str, **text_options):
    """(as inference has it, prepared for training), equal weights."""
    torch.manual_seed(0)
    text = families()[family].tiny()
    for name, value in text_options.items():
        setattr(text, name, value)
    config = RadioVLMConfig(tiny_config().vision_config, text, image_token_id=IMAGE, video_token_id=VIDEO)
    model = RadioVLMForConditionalGeneration(config).eval()
    prepared = copy.deepcopy(model)
    prepare_language_model(prepared.language_model)
    return model, prepared


def with_labels(inputs: dict) -> dict:
    """Every token but those of pictures is a target."""
    return {**inputs, "labels": inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"] > 0, -100)}


def packed(samples: list[dict]) -> dict:
    """All samples in one row, numbered."""
    row = batch({key: sum((item[key] for item in samples), []) for key in samples[0]})
    row.pop("attention_mask")
    lengths = torch.tensor([len(item["ids"]) for item in samples])
    return with_labels({**row, "seq_idx": torch.repeat_interleave(torch.arange(len(samples)), lengths)[None]})


@pytest.mark.parametrize("family", FAMILIES)
def test_inference_and_training_compute_the_same(family):
    model, prepared = both(family)
    inputs = batch(*mixed_samples())
    with torch.no_grad():
        expected, got = model(**inputs).logits, prepared(**inputs).logits
    assert (got - expected)[inputs["attention_mask"].bool()].abs().max() <= 2e-5
    assert torch.equal(prepared.generate(**inputs, **GREEDY), model.generate(**inputs, **GREEDY))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_row_is_its_samples_one_by_one(family):
    model, prepared = both(family, **NO_ROW_LOSS)
    samples = mixed_samples()
    row = packed(samples)
    loss = prepared.train()(**row).loss
    loss.backward()
    alone = [with_labels(batch(item)) for item in samples]
    count = sum(int((one["labels"][:, 1:] != -100).sum()) for one in alone)
    expected = sum(model.train()(**one, num_items_in_batch=count).loss for one in alone)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=2e-5, atol=2e-5)
    for (name, got), (_, want) in zip(prepared.named_parameters(), model.named_parameters()):
        assert (got.grad is None) == (want.grad is None), name
        if want.grad is not None:
            assert (got.grad - want.grad).norm() <= 1e-4 * want.grad.norm() + 1e-6, name
    leaking = prepared(**{name: value for name, value in row.items() if name != "seq_idx"}).loss
    assert (leaking - expected).abs() > 2e-4, "the control: without seq_idx the samples see each other"


@pytest.mark.parametrize("family", FAMILIES)
def test_text_alone_is_what_the_language_model_says(family):
    """Falcon-H1 scales its embeddings on the `input_ids` path only; a VLM always passes embeddings."""
    for model in both(family):
        ids = torch.arange(10, 40)[None]
        with torch.no_grad():
            assert (model(input_ids=ids).logits - model.language_model(input_ids=ids).logits).abs().max() <= 1e-5


@pytest.mark.parametrize("family", ["nemotron_h", "mamba2", "qwen3"])
def test_checkpoint_tells_nothing_of_it(family, tmp_path):
    model, prepared = both(family)
    prepared.save_pretrained(tmp_path)
    written = (tmp_path / "config.json").read_text()
    assert "packed" not in written.lower() and json.loads(written)["text_config"]["model_type"] == family
    again = RadioVLMForConditionalGeneration.from_pretrained(tmp_path)
    inputs = batch(*mixed_samples())
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_the_whole_vlm_is_told_what_to_prepare_instead():
    model, prepared = both("qwen3")
    with pytest.raises(TypeError, match="prepare model.language_model"):
        prepare_language_model(model)
    row = packed(mixed_samples())
    with pytest.raises(RadioVLMError, match=r"prepare_language_model\(model.language_model\)"):
        model(**row)
    assert prepared(**row, skip_logits=True).loss == prepared(**row).loss
