"""Every family of the registry computes the same however it is run: at once as transformers does, token by token, in
chunks, behind left padding, from embeddings; and generates the same tokens. Controls show where transformers does not.
"""

import pytest
import torch

from llm import families, restore_language_model
from tests.helpers.family_models import (
    BIASES,
    FAMILIES,
    HYBRIDS,
    chunked_logits,
    left_padded,
    native_and_prepared,
    padding_probe,
    tokens,
    with_biases,
)
from tests.helpers.tiny_llm import difference, native_model, prepared_copy

TOLERANCE = 2e-5
SIZES = [1, 7, 64, 100]  # sum to 172: beyond two scan chunks of 64, beyond Mistral's window of 96
GREEDY = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
LENGTHS = [40, 17, 5, 1]
REFUSE_EMBEDS = ("bamba", "falcon_h1", "nemotron_h", "zamba2")  # in transformers 5.23
LIMITED = [name for name in HYBRIDS if name != "jamba"]  # Mamba-1 has no step limit


@pytest.fixture(scope="module")
def pairs():
    """Family -> (transformers' model, prepared model), made once."""
    made = {}

    def pair(name: str):
        if name not in made:
            made[name] = native_and_prepared(name)
        return made[name]

    return pair


@torch.no_grad()
def full_logits(model, ids: torch.Tensor, **kwargs) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False, **kwargs).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_batch_equals_transformers(name: str, pairs):
    native, model = pairs(name)
    ids = tokens(2, sum(SIZES))
    wanted = full_logits(native, ids)
    assert wanted.abs().max() > 1.5
    assert difference(full_logits(model, ids), wanted) <= TOLERANCE
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    wanted_hidden = native(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(hidden) == len(wanted_hidden)
    assert max(map(difference, hidden, wanted_hidden)) <= 1e-4  # before the norm, so larger than logits


@pytest.mark.parametrize("sizes", [[100] + [1] * 30, SIZES, SIZES[::-1], [1] * 12, [2, 2, 2, 3]], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_cache_changes_nothing(name: str, sizes: list[int], pairs):
    """Prefill and decoding, chunked prefill, token by token from the start, chunks shorter than the convolution."""
    _, model = pairs(name)
    ids = tokens(2, sum(sizes))
    assert difference(chunked_logits(model, ids, sizes), full_logits(model, ids)) <= TOLERANCE


@pytest.mark.parametrize("name", ["jamba", "bamba"])
def test_transformers_fails_at_chunked_prefill(name: str, pairs):
    """Control: Jamba starts every chunk from an empty state, Bamba counts positions from 0 again."""
    native, _ = pairs(name)
    ids = tokens(2, sum(SIZES))
    assert difference(chunked_logits(native, ids, SIZES), full_logits(native, ids)) > 0.1


@pytest.mark.parametrize("sizes", [[30] + [1] * 10, [7, 16, 17], [1] * 40], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_left_padded_chunks_equal_single_rows(name: str, sizes: list[int], pairs):
    """Also where a chunk, or a single token, is padding in one row and text in another."""
    _, model = pairs(name)
    ids = tokens(len(LENGTHS), sum(sizes))
    padded, mask = left_padded(ids, LENGTHS)
    logits = chunked_logits(model, padded, sizes, mask)
    for row, length in enumerate(LENGTHS):
        wanted = full_logits(model, ids[row : row + 1, :length])
        assert difference(logits[row : row + 1, -length:], wanted) <= TOLERANCE, f"row {row}"


@pytest.mark.parametrize("name", ["nemotron_h", "mamba2"])
def test_transformers_lets_a_lone_padded_token_into_the_state(name: str, pairs):
    """Control of the last case above."""
    native, _ = pairs(name)
    ids = tokens(len(LENGTHS), max(LENGTHS))
    padded, mask = left_padded(ids, LENGTHS)
    logits = chunked_logits(native, padded, [1] * max(LENGTHS), mask)
    assert difference(logits[2:3, -5:], full_logits(native, ids[2:3, :5])) > 0.1


@pytest.mark.parametrize("biases", [False, True], ids=["plain", "biases"])
@pytest.mark.parametrize("name", FAMILIES)
def test_left_padding_leaks_nothing(name: str, biases: bool, pairs):
    """Values and gradients; the padded positions hold large noise."""
    if biases and name not in BIASES:
        return  # its projections have no such option
    native, model = native_and_prepared(name, with_biases(name)) if biases else pairs(name)
    ids, padding = tokens(1, 100), 29
    alone, alone_gradient = padding_probe(model, ids, 0)
    logits, gradient = padding_probe(model, ids, padding)
    assert difference(logits, alone) <= TOLERANCE
    assert not gradient[:, :padding].any()
    wanted = alone_gradient.abs().max()
    assert difference(gradient[:, padding:], alone_gradient) <= 1e-4 * wanted
    if biases:  # control: transformers masks before the projection, whose bias then enters convolution and state
        assert difference(padding_probe(native, ids, padding)[0], padding_probe(native, ids, 0)[0]) > 0.1
    if name in HYBRIDS:  # control: the noise is loud enough to be heard
        unmasked = model(input_ids=torch.cat([tokens(1, padding, seed=1), ids], dim=1)).logits[:, padding:]
        assert difference(unmasked, full_logits(model, ids)) > 0.1


def expected_tokens(native, sequences: torch.Tensor, new: int) -> torch.Tensor:
    """What greedy decoding must have chosen: the largest logits of transformers' model over the whole sequence."""
    return full_logits(native, sequences)[:, -new - 1 : -1].argmax(-1)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_generation(name: str, pairs):
    """With a cache, without, with a static one, in chunks, from embeddings, going on from a cache: the same tokens."""
    native, model = pairs(name)
    ids = tokens(3, 40)
    found = model.generate(input_ids=ids, return_dict_in_generate=True, **GREEDY)
    new = found.sequences[:, 40:]
    assert torch.equal(new, expected_tokens(native, found.sequences, 8))
    assert len({tuple(row.tolist()) for row in new}) == 3, "three prompts, three answers"

    assert torch.equal(model.generate(input_ids=ids, use_cache=False, **GREEDY), found.sequences)
    assert torch.equal(model.generate(input_ids=ids, cache_implementation="static", **GREEDY), found.sequences)
    if name != "mamba2":  # transformers finds no cache of this name to fill
        assert torch.equal(model.generate(input_ids=ids, prefill_chunk_size=16, **GREEDY), found.sequences)
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, **GREEDY), new)

    if name != "mamba2":
        turn = {"input_ids": torch.cat([found.sequences, tokens(3, 5, seed=1)], dim=1)}
        turn["attention_mask"] = torch.ones_like(turn["input_ids"])  # an answer may hold the padding's id
        again = model.generate(**turn, past_key_values=found.past_key_values, **GREEDY)
        assert torch.equal(again, model.generate(**turn, **GREEDY))


@pytest.mark.parametrize("name", FAMILIES)
def test_left_padded_generation_equals_single(name: str, pairs):
    """From ids and from embeddings."""
    _, model = pairs(name)
    ids = tokens(len(LENGTHS), max(LENGTHS))
    padded, mask = left_padded(ids, LENGTHS)
    wanted = [model.generate(input_ids=ids[i : i + 1, :n], **GREEDY)[0, n:] for i, n in enumerate(LENGTHS)]
    found = model.generate(input_ids=padded, attention_mask=mask, **GREEDY)[:, max(LENGTHS) :]
    assert torch.equal(found, torch.stack(wanted))
    embeds = model.get_input_embeddings()(padded)
    assert torch.equal(model.generate(inputs_embeds=embeds, attention_mask=mask, **GREEDY), torch.stack(wanted))
    unmasked = model.generate(input_ids=padded, attention_mask=torch.ones_like(mask), **GREEDY)[:, max(LENGTHS) :]
    assert not torch.equal(unmasked, torch.stack(wanted))


@pytest.mark.parametrize("name", FAMILIES)
def test_beams_and_several_answers(name: str, pairs):
    """The cache follows its beam: the same as transformers' search without any cache."""
    native, model = pairs(name)
    ids = tokens(2, 20)
    for ways in ({"num_beams": 4, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 3}):
        torch.manual_seed(0)
        found = model.generate(input_ids=ids, **(GREEDY | ways))
        torch.manual_seed(0)
        wanted = native.generate(input_ids=ids, use_cache=False, **(GREEDY | ways))
        assert torch.equal(found, wanted)
        assert found.shape == (2 * ways["num_return_sequences"], 28)
        assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_makes_the_logits_it_needs(name: str, pairs):
    _, model = pairs(name)
    made = []
    hook = model.get_output_embeddings().register_forward_hook(lambda head, args, out: made.append(tuple(out.shape)))
    try:
        model.generate(inputs_embeds=model.get_input_embeddings()(tokens(3, 40)), **GREEDY)
        assert made == [(3, 1, 96)] * 8
        made.clear()
        logits = model(input_ids=tokens(3, 40), logits_to_keep=2).logits
        assert made == [(3, 2, 96)] and logits.shape == (3, 2, 96)
    finally:
        hook.remove()


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_mean_what_ids_mean(name: str, pairs):
    native, model = pairs(name)
    ids = tokens(2, 40)
    embeds = model.get_input_embeddings()(ids).detach()
    wanted = full_logits(native, ids)
    with torch.no_grad():
        assert difference(model(inputs_embeds=embeds, use_cache=False).logits, wanted) <= TOLERANCE
        native_error = difference(native(inputs_embeds=embeds, use_cache=False).logits, wanted)
    scale = families()[name].embedding_scale(model.config)
    assert (native_error > 0.1) == (scale != 1) == (name == "falcon_h1")


@pytest.mark.parametrize("name", REFUSE_EMBEDS)
def test_transformers_refuses_to_generate_from_embeddings(name: str, pairs):
    """Control: what a vision-language model asks of its language model."""
    native, _ = pairs(name)
    with pytest.raises(ValueError, match="inputs_embeds"):
        native.generate(inputs_embeds=native.get_input_embeddings()(tokens(1, 5)), **GREEDY)


@pytest.mark.parametrize("name", LIMITED)
def test_step_limits_hold_in_every_forward(name: str, pairs):
    config = families()[name].tiny()
    config.time_step_limit = (0.01, 0.1)
    native, model = native_and_prepared(name, config)
    ids, decoding = tokens(2, 100), [50] + [1] * 50
    wanted = full_logits(native, ids)
    assert difference(full_logits(model, ids), wanted) <= TOLERANCE
    assert difference(chunked_logits(model, ids, decoding), wanted) <= TOLERANCE
    assert difference(full_logits(pairs(name)[1], ids), wanted) > 0.1, "control: the limits bite"
    assert difference(chunked_logits(native, ids, decoding), wanted) > 0.1, "control: transformers forgets them"


def test_limits_are_those_of_the_configuration_not_the_initialisation_range():
    """transformers 5.23 clamps Nemotron-H's steps to at least `time_step_min`, which trained models go below."""
    config = families()["nemotron_h"].tiny()
    config.time_step_min = 0.5
    fixed, model = native_and_prepared("nemotron_h", config)
    raw = restore_language_model(prepared_copy(fixed))
    for module in raw.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (config.time_step_min, float("inf"))  # as its __init__ writes
    ids = tokens(1, 40)
    assert difference(full_logits(model, ids), full_logits(fixed, ids)) <= TOLERANCE
    assert difference(full_logits(model, ids), full_logits(raw, ids)) > 0.1


@pytest.mark.parametrize("name", ["bamba", "falcon_h1", "granitemoehybrid"])
def test_no_limit_may_be_written_as_none(name: str, pairs):
    config = families()[name].tiny()
    config.time_step_limit = None
    _, model = native_and_prepared(name, config)
    ids = tokens(1, 70)
    assert torch.equal(full_logits(model, ids), full_logits(pairs(name)[1], ids))


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_stays_near_fp32(name: str, pairs):
    """The median over tokens: experts are chosen by rank, so single tokens may jump."""
    exact = pairs(name)[0]
    model = prepared_copy(pairs(name)[0]).to(torch.bfloat16)
    ids = tokens(2, 100)
    wanted = full_logits(exact, ids)
    for logits in (full_logits(model, ids), chunked_logits(model, ids, [80] + [1] * 20)):
        assert (logits - wanted).abs().amax(-1).median() <= 0.03 * wanted.abs().max()
        assert (logits - wanted).abs().max() > 0, "control: it is bf16"


@pytest.mark.parametrize("name", FAMILIES)
def test_eager_attention(name: str):
    native = native_model(name)
    model = prepared_copy(native)
    model.set_attn_implementation("eager")
    ids = tokens(2, 120)
    assert difference(full_logits(model, ids), full_logits(native, ids)) <= TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
def test_no_input_or_two_is_an_error(name: str, pairs):
    _, model = pairs(name)
    ids = tokens(1, 3)
    for inputs in ({}, {"input_ids": ids, "inputs_embeds": model.get_input_embeddings()(ids)}):
        with pytest.raises(ValueError, match="input_ids .* inputs_embeds"):
            model(**inputs)


@pytest.mark.parametrize("name", ["nemotron_h", "bamba", "jamba"])
def test_a_lone_token_may_have_a_4d_mask(name: str, pairs):
    """As transformers allows: (B, 1, L, keys), True where a key is seen."""
    native, model = pairs(name)
    ids = tokens(2, 1)
    mask = torch.ones(2, 1, 1, 1, dtype=torch.bool)
    wanted = full_logits(native, ids)
    assert difference(full_logits(model, ids, attention_mask=mask), wanted) <= TOLERANCE
