"""What a row of packed samples means: slow twins of the tensors made from seq_idx, and every form of wrong input."""

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, PreTrainedConfig

from llm import families, load_language_model
from llm.packing import PackedBatch, check_limits, drop_first_targets, pack_batch, restarting_positions, sample_starts
from tests.helpers.tiny_llm import difference, native_model, prepared_copy, random_ids, separate_logits, seq_idx_of

ROWS = [[3, 1, 4, 2], [10]]


def test_positions_lengths_and_numbers_by_hand():
    seq_idx = torch.tensor([[2, 2, 5, 7, 7, 7], [0, 0, 0, 0, 9, 9]])
    batch = pack_batch(seq_idx, (2, 6))
    assert batch.seq_idx.tolist() == [[0, 0, 1, 2, 2, 2], [0, 0, 0, 0, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 0, 0, 1, 2], [0, 1, 2, 3, 0, 1]]
    assert batch.lengths == (2, 1, 3, 4, 2)
    assert batch.cu_seqlens.tolist() == [0, 2, 3, 6, 10, 12]
    assert batch.seq_idx.dtype == batch.cu_seqlens.dtype == torch.int32
    assert batch.position_ids.dtype == torch.int64


def slow_positions(seq_idx: torch.Tensor) -> list[list[int]]:
    rows = []
    for row in seq_idx.tolist():
        positions, count = [], 0
        for place, number in enumerate(row):
            count = 0 if place == 0 or number != row[place - 1] else count + 1
            positions.append(count)
        rows.append(positions)
    return rows


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.uint8])
def test_random_rows_against_a_loop(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    steps = torch.rand(5, 80, generator=generator) < 0.2
    seq_idx = steps.cumsum(1).to(dtype)
    batch = pack_batch(seq_idx, (5, 80))
    assert batch.position_ids.tolist() == slow_positions(seq_idx)
    assert torch.equal(restarting_positions(sample_starts(seq_idx)), batch.position_ids)
    assert sum(batch.lengths) == seq_idx.numel()
    ends = [length - 1 for length in batch.lengths]
    flat = batch.position_ids.flatten()
    assert [flat[i - 1].item() for i in batch.cu_seqlens[1:].tolist()] == ends


def test_padding_becomes_samples_of_its_own():
    seq_idx = torch.tensor([[0, 0, 1, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    batch = pack_batch(seq_idx, (1, 6), attention_mask=mask)
    assert batch.lengths == (2, 2, 2)
    assert batch.seq_idx.tolist() == [[0, 0, 1, 1, 2, 2]]
    left = pack_batch(torch.zeros(1, 6, dtype=torch.int), (1, 6), attention_mask=mask.flip(1))
    assert left.lengths == (2, 4)
    assert left.position_ids.tolist() == [[0, 1, 0, 1, 2, 3]]


def test_first_tokens_are_dropped_from_labels():
    labels = torch.tensor([[5, 6, 7, 8, 9]])
    dropped = drop_first_targets(labels, torch.tensor([[0, 0, 1, 2, 2]]))
    assert dropped.tolist() == [[-100, 6, -100, -100, 9]]
    assert labels.tolist() == [[5, 6, 7, 8, 9]], "the caller's labels stay"


@pytest.fixture(scope="module")
def llama():
    native = native_model("llama")
    return native, prepared_copy(native)


def call(model, **changes):
    ids = random_ids(ROWS)
    return model(**{"input_ids": ids, "seq_idx": seq_idx_of(ROWS), **changes})


@pytest.mark.parametrize(
    ("seq_idx", "words"),
    [
        (torch.tensor([[0] * 4 + [2] * 3 + [1] * 3, [0] * 10]), "decreases from 2 to 1 at row 0, position 7"),
        (torch.tensor([[0] * 10, [1] * 5 + [0] * 5]), "at row 1, position 5"),
        (torch.zeros(2, 9, dtype=torch.int), r"shape \(2, 9\), but the batch has shape \(2, 10\)"),
        (torch.zeros(1, 10, dtype=torch.int), r"shape \(1, 10\), but the batch has shape \(2, 10\)"),
        (torch.zeros(10, dtype=torch.int), r"shape \(10,\), but"),
        (torch.zeros(2, 10), "integer tensor, got torch.float32"),
        (torch.zeros(2, 10, dtype=torch.bool), "integer tensor, got torch.bool"),
        ([[0] * 10] * 2, "integer tensor, got list"),
    ],
)
def test_wrong_seq_idx(llama, seq_idx, words: str):
    with pytest.raises(ValueError, match=words):
        call(llama[1], seq_idx=seq_idx)


def test_padding_numbered_downwards_is_told_how_to(llama):
    """-1 for padding at the end of a row, as some packers write it, is a decrease."""
    seq_idx = seq_idx_of(ROWS)
    seq_idx[0, -2:] = -1
    with pytest.raises(ValueError, match="padding at the end of a row gets the next number, or a 0 in attention_mask"):
        call(llama[1], seq_idx=seq_idx)


@pytest.mark.parametrize("change", ["cache", "use_cache"])
def test_no_cache_beside_seq_idx(llama, change: str):
    inputs = {"past_key_values": DynamicCache()} if change == "cache" else {"use_cache": True}
    with pytest.raises(ValueError, match="seq_idx and a cache were both given"):
        call(llama[1], **inputs)
    call(llama[1], use_cache=False)


def test_no_mamba_cache_beside_seq_idx():
    model = prepared_copy(native_model("mamba2"))
    cache = model(input_ids=random_ids(ROWS), use_cache=True).cache_params
    with pytest.raises(ValueError, match="seq_idx and a cache were both given"):
        call(model, cache_params=cache)


def test_position_ids_must_count_inside_a_sample(llama):
    native, model = llama
    wanted = call(model).logits
    right = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3, 0, 1], list(range(10))])
    assert torch.equal(call(model, position_ids=right).logits, wanted)
    running = torch.arange(10)[None]  # one row for all, counting through: positions restart all the same
    assert torch.equal(call(model, position_ids=running).logits, wanted)
    assert difference(wanted, separate_logits(native, random_ids(ROWS), ROWS)) <= 2e-5
    wrong = right.clone()
    wrong[1, 5:] = torch.arange(5)
    with pytest.raises(ValueError, match="position_ids and seq_idx disagree at row 1, position 5"):
        call(model, position_ids=wrong)


@pytest.mark.parametrize("shape", [(2, 1, 10, 10), (2, 9), (10,)])
def test_mask_beside_seq_idx_must_be_one_of_padding(llama, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"the mask must be \(B, L\) = \(2, 10\)"):
        call(llama[1], attention_mask=torch.ones(shape))


def test_unknown_attention_is_refused(llama):
    model = prepared_copy(llama[0])
    for name in ("sdpa_of_my_own", "paged|sdpa", "paged|flash_attention_2"):
        model.config._attn_implementation_internal = name
        with pytest.raises(ValueError, match="nothing is known to keep packed samples apart there"):
            call(model)


def small(config_class, **options) -> PreTrainedConfig:
    return config_class(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, **options
    )


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_frequencies_of_the_longest_sample(kind: str):
    """transformers sets them for a whole batch: beyond the trained length a packed sample differs from a lone one."""
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    if kind == "longrope":
        factors = {"short_factor": [1.0] * 8, "long_factor": [1.5] * 8, "original_max_position_embeddings": 32}
        rope |= factors
    longest = 128 if kind == "longrope" else 32
    config = small(LlamaConfig, max_position_embeddings=longest, rope_parameters=rope, initializer_range=0.1)
    native = native_model(config)
    fresh, model = copy.deepcopy(native), prepared_copy(native)  # `dynamic` remembers the longest it has seen
    for rows, allowed in (([[32, 8]], True), ([[33, 8]], False), ([[41]], True)):
        ids, seq_idx = random_ids(rows), seq_idx_of(rows)
        if allowed:
            assert difference(model(ids, seq_idx=seq_idx).logits, separate_logits(native, ids, rows)) <= 2e-5
            continue
        with pytest.raises(ValueError, match="33 positions, but rotary positions of type"):
            model(ids, seq_idx=seq_idx)
    # what the error prevents: transformers' own packing by position_ids
    ids, positions = random_ids([[33, 8]]), restarting_positions(sample_starts(seq_idx_of([[33, 8]])))
    leaky = native(ids, position_ids=positions, use_cache=False).logits[:, 33:]
    assert difference(leaky, separate_logits(prepared_copy(fresh), ids, [[33, 8]])[:, 33:]) > 1e-2


def test_chunked_attention_is_cut_by_place():
    config = PreTrainedConfig(attention_chunk_size=8)
    batch = lambda length: pack_batch(torch.zeros(1, length, dtype=torch.int), (1, length))  # noqa: E731
    check_limits(config, batch(8))
    with pytest.raises(ValueError, match="9 positions, but attention_chunk_size is 8"):
        check_limits(config, batch(9))


def test_limits_of_one_layer_type():
    rope = {"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}}
    config = SimpleNamespace(rope_parameters=rope, max_position_embeddings=4)
    batch = PackedBatch(torch.zeros(1, 8), torch.zeros(1, 8), (5, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="longer than 4"):
        check_limits(config, batch)


@pytest.mark.parametrize("name", sorted(families()))
def test_every_family_refuses_a_decreasing_row(name: str):
    model = prepared_copy(native_model(name))
    with pytest.raises(ValueError, match="seq_idx decreases"):
        call(model, seq_idx=seq_idx_of(ROWS).flip(1))


def test_transformers_alone_would_not_notice():
    """Control: what prepare adds. The native class takes seq_idx as any keyword, and leaks."""
    native = AutoModelForCausalLM.from_config(families()["mamba2"].tiny()).eval()
    with torch.no_grad():
        leaky = call(native).logits
        assert difference(leaky, separate_logits(native, random_ids(ROWS), ROWS)) > 1e-2


def test_arguments_of_another_kind_are_told_in_words():
    seq_idx = torch.tensor([[0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"position_ids have shape \(1, 3\).*\(1, 4\)"):
        pack_batch(seq_idx, (1, 4), position_ids=torch.arange(3)[None])
    with pytest.raises(ValueError, match=r"position_ids have shape \(3, 1, 4\)"):
        pack_batch(seq_idx, (1, 4), position_ids=torch.zeros(3, 1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="the mask must be.*got list"):
        pack_batch(seq_idx, (1, 4), attention_mask=[[1, 1, 1, 0]])
    model = load_language_model(families()["llama"].tiny())
    with pytest.raises(ValueError, match="generate and seq_idx"):
        model.generate(torch.arange(3, 7)[None], seq_idx=seq_idx, max_new_tokens=2)
