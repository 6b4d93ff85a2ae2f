"""`generate` in every form equals the plain run: cache, batch, beams, chunks, turns, embeddings, compiled steps."""

import pytest
import torch
from transformers import DynamicCache, StaticCache, TextStreamer

from tests.helpers.model_inputs import batch, mixed_samples, sample, tiny_model
from vlm.errors import RadioVLMError, SampleError

FAMILIES = ["nemotron_h", "llama", "gemma2", "bamba"]
GREEDY = dict(max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)


def count_calls(module: torch.nn.Module) -> list[int]:
    """A list that grows with every forward of `module`."""
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def generate(model, inputs: dict, **options) -> torch.Tensor:
    """New tokens only."""
    out = model.generate(**inputs, **{**GREEDY, **options})
    return out[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_equals_uncached(family):
    model = tiny_model(family)
    inputs = batch(*mixed_samples())
    assert torch.equal(generate(model, inputs), generate(model, inputs, use_cache=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_equals_single_runs(family):
    model = tiny_model(family)
    samples = mixed_samples()
    together = generate(model, batch(*samples))
    assert torch.equal(together, torch.cat([generate(model, batch(item)) for item in samples]))


def test_cached_logits_equal_uncached_logits_step_by_step():
    model = tiny_model()
    inputs = batch(*mixed_samples())
    options = dict(**GREEDY, output_logits=True, return_dict_in_generate=True)
    cached, plain = model.generate(**inputs, **options), model.generate(**inputs, use_cache=False, **options)
    for a, b in zip(cached.logits, plain.logits):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 3}])
def test_beams_equal_single_runs(family, options):
    model = tiny_model(family)
    samples = mixed_samples()
    together = generate(model, batch(*samples), **options)
    alone = torch.cat([generate(model, batch(item), **options) for item in samples])
    assert torch.equal(together, alone)


def test_num_return_sequences_share_the_pictures():
    model = tiny_model()
    inputs = batch(*mixed_samples())
    many = model.generate(**inputs, **{**GREEDY, "do_sample": True, "top_k": 1}, num_return_sequences=3)
    assert torch.equal(many, model.generate(**inputs, **GREEDY).repeat_interleave(3, dim=0))


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}, {"use_cache": False}]
)
def test_features_are_made_once(options):
    model = tiny_model()
    encoder, projector = count_calls(model.vision_model.encoder), count_calls(model.multi_modal_projector)
    generate(model, batch(sample(2, (2, 4), 2, (2, 4), 3), sample(1, (2, 4), 2, seed=1)), **options)
    assert len(encoder) == len(projector) == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [1, 3, 4, 64])
def test_chunked_prefill_equals_plain(family, size):
    model = tiny_model(family)
    inputs = batch(*mixed_samples())
    assert torch.equal(generate(model, inputs, prefill_chunk_size=size), generate(model, inputs))


def join(*turns: dict) -> dict:
    """One sample of several."""
    keys = ("ids", "types", "images", "videos")
    return {key: [value for turn in turns for value in turn[key]] for key in keys}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pixels", ["all", "new"])
@pytest.mark.parametrize("second", [(3, (4, 2), 2), (4,)])
def test_cache_is_reused_over_turns(family, pixels, second):
    """The image only in the first, only in the second, or in both turns; the caller passes all pictures or new ones."""
    model = tiny_model(family)
    first, later = sample(2, (2, 4), 3), sample(*second, seed=7)
    begun = model.generate(**batch(first), **GREEDY, return_dict_in_generate=True)
    answer = begun.sequences[0, len(first["ids"]) :].tolist()
    said = {"ids": answer, "types": [0] * len(answer), "images": [], "videos": []}
    whole = join(first, said, later)
    want = generate(model, batch(whole))
    inputs = batch(whole)
    if pixels == "new":
        inputs = {key: value for key, value in inputs.items() if not key.startswith(("pixel", "image"))}
        inputs |= {key: value for key, value in batch(later).items() if key.startswith(("pixel", "image"))}
    calls = count_calls(model.vision_model.encoder)
    got = generate(model, inputs, past_key_values=begun.past_key_values)
    assert torch.equal(got, want)
    assert len(calls) == (1 if any(isinstance(part, tuple) for part in second) else 0)


@pytest.mark.parametrize("family", ["nemotron_h", "llama"])
def test_only_the_new_tokens_of_a_turn(family):
    """A caller may pass what is new, with the mask of everything (transformers' second convention)."""
    model = tiny_model(family)
    first, later = sample(2, (2, 4), 3), sample(2, (4, 2), 3, seed=7)
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        model(**batch(first), past_key_values=cache, use_cache=True)
    new = batch(later)
    mask = torch.ones(1, len(first["ids"]) + len(later["ids"]), dtype=torch.long)
    position_ids = torch.arange(mask.shape[1])[None]
    got = generate(model, {**new, "attention_mask": mask, "position_ids": position_ids}, past_key_values=cache)
    assert torch.equal(got, generate(model, batch(join(first, later))))


def test_forward_continues_from_a_cache_with_pictures():
    model = tiny_model()
    first, later = sample(2, (2, 4), 3), sample(2, (4, 2), 3, seed=7)
    with torch.no_grad():
        begun = model(**batch(first), use_cache=True)
        mask = torch.ones(1, len(first["ids"]) + len(later["ids"]), dtype=torch.long)
        rest = model(**{**batch(later), "attention_mask": mask}, past_key_values=begun.past_key_values).logits
        whole = model(**batch(join(first, later))).logits[:, -rest.shape[1] :]
    torch.testing.assert_close(rest, whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["nemotron_h", "llama"])
def test_inputs_embeds_with_and_without_pixels(family):
    model = tiny_model(family)
    inputs = batch(*mixed_samples())
    want = generate(model, inputs)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    assert torch.equal(model.generate(inputs_embeds=embeds, **rest, **GREEDY), want)
    pixels = {key: rest.get(key) for key in ("pixel_values", "image_grid_hw", "pixel_values_videos", "video_grid_thw")}
    merged, _, _ = model._embed(None, embeds, pixels, rest["mm_token_type_ids"], None)
    mask = rest["attention_mask"]
    assert torch.equal(model.generate(inputs_embeds=merged, attention_mask=mask, **GREEDY), want)
    with pytest.raises(RadioVLMError, match="prefill_chunk_size"):
        model.generate(inputs_embeds=merged, attention_mask=mask, prefill_chunk_size=2, **GREEDY)
    with pytest.raises(SampleError, match="mm_token_type_ids"):
        model.generate(inputs_embeds=embeds, attention_mask=mask, **{k: v for k, v in pixels.items() if v is not None})


def test_streaming_yields_the_same_tokens():
    class Collect(TextStreamer):
        def __init__(self):
            self.values = []

        def put(self, value):
            self.values += value.flatten().tolist()

        def end(self):
            self.values.append("end")

    model = tiny_model()
    inputs = batch(sample(2, (2, 4), 3))
    streamer = Collect()
    out = model.generate(**inputs, **GREEDY, streamer=streamer)
    assert streamer.values == [*out[0].tolist(), "end"]


def test_mismatch_in_generate_names_the_sample():
    model = tiny_model()
    bad = sample(2, (2, 4), 3)
    bad["ids"][0], bad["types"][0] = bad["ids"][2], 1
    with pytest.raises(SampleError, match="placeholders but") as caught:
        model.generate(**batch(bad), sample_ids=["page-7"], **GREEDY)
    assert caught.value.sample_id == "page-7"


def test_text_only_generation_needs_no_encoder():
    model = tiny_model()
    calls = count_calls(model.vision_model.encoder)
    generate(model, batch(sample(5), sample(3, seed=1)))
    assert not calls


@pytest.mark.parametrize("family", ["nemotron_h", "llama"])
def test_decode_step_compiles_without_breaks(family):
    """One graph per decode step with a cache of fixed size, and the same tokens as the eager run."""
    model = tiny_model(family)
    inputs = batch(sample(2, (2, 4), 3), sample(1, (2, 2), 2, seed=1))
    want = generate(model, inputs)
    torch._dynamo.reset()
    step = torch.compile(model.forward, backend="eager", fullgraph=True)
    cache = StaticCache(config=model.config.text_config, max_cache_len=24)
    prepared = dict(inputs)
    position_ids = prepared["attention_mask"].cumsum(-1).sub(1).clamp(min=0)
    with torch.no_grad():
        masks = model.create_masks_for_generate(
            model.config, inputs_embeds=torch.empty(2, inputs["input_ids"].shape[1], 0), past_key_values=cache,
            attention_mask=inputs["attention_mask"], position_ids=position_ids,
        )  # fmt: skip
        out = model(**{**prepared, "attention_mask": masks}, position_ids=position_ids, past_key_values=cache)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        tokens, attention_mask = [token], inputs["attention_mask"]
        position = position_ids[:, -1:]
        for _ in range(GREEDY["max_new_tokens"] - 1):
            attention_mask = torch.cat([attention_mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
            position = position + 1
            masks = model.create_masks_for_generate(
                model.config, inputs_embeds=torch.empty(2, 1, 0), past_key_values=cache,
                attention_mask=attention_mask, position_ids=position,
            )  # fmt: skip
            out = step(input_ids=token, attention_mask=masks, position_ids=position, past_key_values=cache)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(token)
    assert torch.equal(torch.cat(tokens, dim=1), want)


def test_static_cache_in_generate():
    model = tiny_model()
    inputs = batch(*mixed_samples())
    assert torch.equal(generate(model, inputs, cache_implementation="static"), generate(model, inputs))
