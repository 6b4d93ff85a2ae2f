"""The forward of the model: any mix of media, losses, errors, precision, and what training frameworks rely on."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.model_inputs import IMAGE, VIDEO, batch, mixed_samples, sample, text_config, tiny_config, tiny_model
from vlm.errors import RadioVLMError, SampleError
from vlm.text_backbone import PLAIN_HEADS, has_plain_head

FAMILIES = ["nemotron_h", "llama", "gemma2", "granite"]


def logits_of_rows(model, inputs: dict) -> list[torch.Tensor]:
    """Logits of the real positions of every row."""
    with torch.no_grad():
        logits = model(**inputs).logits
    return [row[mask.bool()] for row, mask in zip(logits, inputs["attention_mask"])]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tubelet", [1, 2])
def test_any_mix_of_media_equals_one_by_one(side, tubelet):
    model = tiny_model(tubelet=tubelet if tubelet > 1 else None)
    samples = mixed_samples(tubelet)
    together = logits_of_rows(model, batch(*samples, side=side))
    for item, row in zip(samples, together):
        (alone,) = logits_of_rows(model, batch(item))
        torch.testing.assert_close(row, alone, atol=2e-5, rtol=1e-4)


def test_pictures_change_the_answer_and_their_order_matters():
    model = tiny_model()
    two = sample(2, (2, 2), 1, (2, 2), 3)
    base = logits_of_rows(model, batch(two))[0][-1]
    swapped = {**two, "images": two["images"][::-1]}
    assert not torch.allclose(base, logits_of_rows(model, batch(swapped))[0][-1], atol=1e-3)


def test_token_types_decide_where_ids_are_the_same():
    model = tiny_model()
    inputs = batch(sample(2, (2, 2, 2), 1, (4, 2), 3))
    want = model(**inputs).logits
    as_image = {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["input_ids"] == VIDEO, IMAGE)}
    model.get_input_embeddings().weight.data[IMAGE] = model.get_input_embeddings().weight.data[VIDEO]
    torch.testing.assert_close(model(**as_image).logits, want)


def test_ids_decide_without_token_types():
    model = tiny_model()
    inputs = batch(*mixed_samples())
    want = model(**inputs).logits
    types = inputs.pop("mm_token_type_ids")
    torch.testing.assert_close(model(**inputs).logits, want)
    literal = batch(sample(3, (2, 2), 4))
    literal["input_ids"][0, 0] = IMAGE  # the same id in plain text is text, when types say so
    assert model(**literal).logits.shape[1] == 8
    with pytest.raises(SampleError):
        model(**{key: value for key, value in literal.items() if key != "mm_token_type_ids"})
    assert types.shape == inputs["input_ids"].shape


def test_media_features_are_those_of_the_feature_calls():
    model = tiny_model()
    inputs = batch(sample(1, (2, 4), 1, (2, 2, 2), 1, (2, 2), 2))
    images = model.get_image_features(inputs["pixel_values"], inputs["image_grid_hw"])
    videos = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    assert images.shape == (3, 32) and videos.shape == (2, 32)
    torch.testing.assert_close(model(**inputs).image_hidden_states, torch.cat([images, videos]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_token_mean_over_labelled_rows_only(family):
    model = tiny_model(family)
    inputs = batch(*mixed_samples(), side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :5] = -100
    with torch.no_grad():
        logits = model(**inputs).logits
    want = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
    out = model(**inputs, labels=labels)
    torch.testing.assert_close(out.loss, want)
    assert out.logits is None
    count = int((labels[:, 1:] != -100).sum())
    torch.testing.assert_close(model(**inputs, labels=labels, num_items_in_batch=2 * count).loss, want / 2)
    full = model(**inputs, labels=labels, return_logits=True)
    torch.testing.assert_close(full.loss, want)
    torch.testing.assert_close(full.logits, logits)
    last = model(**inputs, labels=labels, return_logits=True, logits_to_keep=2).logits
    torch.testing.assert_close(last, logits[:, -2:])


@pytest.mark.parametrize("family", sorted(PLAIN_HEADS))
def test_families_with_a_plain_head_are_plain(family):
    model = tiny_model(family)
    backbone = model.language_model
    assert has_plain_head(backbone)
    ids = torch.tensor([[11, 12, 13, 14]])
    with torch.no_grad():
        hidden = getattr(backbone, backbone.base_model_prefix)(input_ids=ids).last_hidden_state
        torch.testing.assert_close(backbone.get_output_embeddings()(hidden), backbone(input_ids=ids).logits)


def test_families_that_scale_their_logits_are_not_plain():
    for family in ("gemma2", "granite"):
        assert not has_plain_head(tiny_model(family).language_model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_without_labels_has_zero_loss_and_full_gradients(family):
    model = tiny_model(family).train()
    inputs = batch(sample(2, (2, 2), 3))
    loss = model(**inputs, labels=torch.full_like(inputs["input_ids"], -100)).loss
    loss.backward()
    assert loss.item() == 0
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_text_only_training_runs_the_encoder_once_with_weight_zero():
    model = tiny_model(tubelet=2).train()
    calls = []
    model.vision_model.encoder.register_forward_hook(lambda *_: calls.append(1))
    inputs = batch(sample(6), sample(4), side="right")
    out = model(**inputs, labels=inputs["input_ids"])
    out.loss.backward()
    assert len(calls) == 1
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith(("vision_model", "multi_modal_projector")):
            assert not parameter.grad.any(), name
    torch.testing.assert_close(out.loss, model.eval()(**inputs, labels=inputs["input_ids"]).loss)
    assert len(calls) == 1, "inference on text must not pay for the encoder"


def test_one_encoder_pass_for_images_and_videos():
    model = tiny_model(tubelet=2)
    calls = []
    model.vision_model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model(**batch(sample(1, (2, 2), 1, (2, 2, 2), 1, (2, 2), 1, tubelet=2)))
    assert len(calls) == 1


@pytest.mark.parametrize("drop", [0, 1])
def test_placeholders_without_features_name_the_sample(drop):
    model = tiny_model()
    good, bad = sample(2, (2, 2), 3), sample(2, (2, 4), 3, seed=1)
    bad["ids"], bad["types"] = bad["ids"][:2] + bad["ids"][3:], bad["types"][:2] + bad["types"][3:]
    order = [good, bad] if drop else [bad, good]
    with pytest.raises(SampleError, match="placeholders but") as caught:
        model(**batch(*order), sample_ids=["first", "second"])
    assert caught.value.sample_id == ("second" if drop else "first")
    with pytest.raises(SampleError, match="row 1" if drop else "row 0"):
        model(**batch(*order))


def test_pictures_that_slip_into_the_next_sample_are_refused():
    """The sums agree, but the first sample has room for the second one's picture and the other way round."""
    model = tiny_model()
    inputs = batch(sample(2, (2, 2), 3), sample(2, (2, 4), 3, seed=1))
    inputs["image_grid_hw"] = inputs["image_grid_hw"].flip(0)
    with pytest.raises(SampleError, match="2 projected|3 projected") as caught:
        model(**inputs, sample_ids=["first", "second"])
    assert caught.value.sample_id == "first"


def test_missing_grids_and_ambiguous_inputs_are_refused():
    model = tiny_model()
    inputs = batch(sample(2, (2, 2), 3))
    with pytest.raises(RadioVLMError, match="pixel_values / image_grid_hw"):
        model(**{key: value for key, value in inputs.items() if key != "image_grid_hw"})
    with pytest.raises(RadioVLMError, match="exactly one"):
        model()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(SampleError, match="mm_token_type_ids"):
        model(inputs_embeds=embeds, pixel_values=inputs["pixel_values"], image_grid_hw=inputs["image_grid_hw"])


def test_inputs_embeds_equal_input_ids():
    model = tiny_model()
    inputs = batch(*mixed_samples())
    want = model(**inputs).logits
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    torch.testing.assert_close(model(inputs_embeds=embeds, **inputs).logits, want)


def test_data_parallel_is_refused():
    model = tiny_model()
    model._is_replica = True  # what torch.nn.parallel.replicate marks its copies with
    with pytest.raises(RadioVLMError, match="DDP"):
        model(**batch(sample(4)))


def test_geometry_fingerprints_are_compared_at_the_first_forward():
    model = tiny_model()
    inputs = batch(sample(4))
    model(**inputs, geometry_fingerprint=model.config.fingerprint)
    other = tiny_model(geometry={"multiple": 4})
    with pytest.raises(RadioVLMError, match="do not belong together"):
        other(**inputs, geometry_fingerprint=[model.config.fingerprint])
    raised = tiny_config(geometry={"max_num_patches": 8192})
    assert raised.fingerprint == model.config.fingerprint, "budgets may be raised for one call"


def test_seq_idx_needs_packing_enabled_in_the_backbone():
    model = tiny_model()
    inputs = batch(sample(6))
    seq_idx = torch.zeros_like(inputs["input_ids"])
    with pytest.raises(RadioVLMError, match="with padding and leave `seq_idx` out"):
        model(**inputs, seq_idx=seq_idx)
    seen = {}
    model.language_model.packing_enabled = True
    model.language_model.forward = lambda **kwargs: seen.update(kwargs) or {"logits": None}
    with pytest.raises(AttributeError):
        model(**inputs, seq_idx=seq_idx)
    assert seen["seq_idx"] is seq_idx


def test_gradient_checkpointing_gives_the_same_gradients():
    inputs = batch(*mixed_samples(), side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model(**inputs, labels=labels, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_gradients_reach_all_three_parts():
    model = tiny_model().train()
    inputs = batch(*mixed_samples(), side="right")
    model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)).loss.backward()
    for part in ("vision_model", "multi_modal_projector", "language_model"):
        assert sum(p.grad.abs().sum() for p in getattr(model, part).parameters()) > 0, part


def test_hidden_states_and_tuples_on_request():
    model = tiny_model()
    inputs = batch(sample(2, (2, 2), 3))
    out = model(**inputs, output_hidden_states=True)
    assert len(out.hidden_states) == 6
    torch.testing.assert_close(model(**inputs, return_dict=False)[0], out.logits)


def test_bfloat16_stays_close_to_float32():
    model = tiny_model()
    inputs = batch(*mixed_samples())
    with torch.no_grad():
        exact = model(**inputs).logits
        rough = model.to(torch.bfloat16)(**inputs).logits.float()
    real = inputs["attention_mask"].bool()
    error = (rough - exact)[real].abs()
    scale = exact[real].std()
    assert error.mean() < 0.03 * scale and error.max() < 0.25 * scale, (error.mean() / scale, error.max() / scale)


def test_tiny_text_config_is_what_it_says():
    assert text_config().hybrid_override_pattern == "M*-M-"
