"""Attention sample by sample against one softmax over the whole row under a mask written out by hand."""

from types import SimpleNamespace

import pytest
import torch
from transformers import MistralConfig, Qwen3Config

from llm.packed_attention import PACKED_SDPA, check_attention, local_mask, no_mask, packed_sdpa
from llm.packing import pack_batch
from tests.helpers.tiny_llm import (
    difference,
    gradient_error,
    gradients,
    native_model,
    prepared_copy,
    random_ids,
    separate_logits,
    seq_idx_of,
)

ROWS = [[40, 1, 23], [7, 57]]


def slow_attention(query, key, value, seq_idx, scaling=None, window=None):
    """(B, H, L, d) -> (B, L, H, d): every pair of positions is asked whether it may see the other."""
    heads = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    length = query.shape[2]
    for row in range(query.shape[0]):
        for i in range(length):
            for j in range(length):
                same = seq_idx[row, i] == seq_idx[row, j]
                if j > i or not same or (window is not None and i - j >= window):
                    scores[row, :, i, j] = float("-inf")
    return (scores.softmax(-1) @ value).transpose(1, 2)


def tensors(heads: int, kv_heads: int, width: int = 8, value_width: int = 8):
    generator = torch.Generator().manual_seed(heads)
    shapes = (heads, width), (kv_heads, width), (kv_heads, value_width)
    return [torch.randn(2, h, 64, d, generator=generator, requires_grad=True) for h, d in shapes]


@pytest.mark.parametrize("window", [None, 1, 5, 64])
@pytest.mark.parametrize(("heads", "kv_heads", "value_width"), [(4, 4, 8), (4, 2, 8), (6, 1, 8), (2, 2, 12)])
def test_against_the_slow_twin(heads: int, kv_heads: int, value_width: int, window: int | None):
    inputs = tensors(heads, kv_heads, value_width=value_width)
    seq_idx = seq_idx_of(ROWS)
    module = SimpleNamespace(num_key_value_groups=heads // kv_heads, is_causal=True)
    lengths = torch.tensor(pack_batch(seq_idx, (2, 64)).lengths)
    options = {"scaling": 0.4, "sliding_window": window, "position_ids": torch.zeros(2, 64)}
    found, weights = packed_sdpa(module, *inputs, None, sample_lengths=lengths, **options)
    wanted = slow_attention(*inputs, seq_idx, scaling=0.4, window=window)
    assert weights is None
    assert difference(found, wanted) <= 2e-6
    direction = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(torch.autograd.grad((found * direction).sum(), inputs),
                    torch.autograd.grad((wanted * direction).sum(), inputs)):  # fmt: skip
        assert difference(a, b) <= 1e-5
    if window != 1:  # each position sees itself alone
        assert difference(found, slow_attention(*inputs, seq_idx * 0, scaling=0.4, window=window)) > 1e-2


def test_without_lengths_it_is_plain_attention():
    inputs = tensors(4, 2)
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    found, _ = packed_sdpa(module, *inputs, None)
    assert difference(found, slow_attention(*inputs, torch.zeros(2, 64))) <= 2e-6
    mask = torch.ones(64, 64, dtype=torch.bool).tril() & (torch.arange(64) != 3)  # a 4-D mask is obeyed
    mask = (mask | torch.eye(64, dtype=torch.bool))[None, None]
    masked, _ = packed_sdpa(module, *inputs, mask)
    assert difference(masked[:, :3], found[:, :3]) <= 2e-6
    assert difference(masked[:, 4:], found[:, 4:]) > 1e-2


def test_local_mask_by_hand():
    assert local_mask(4, 2, torch.device("cpu")).int().tolist() == [
        [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]]
    ]


def test_no_mask_has_four_dimensions():
    """transformers makes no mask of its own beside one of four dimensions."""
    assert no_mask(torch.zeros(2, 5, dtype=torch.long)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("name", [PACKED_SDPA, "sdpa", "eager", None, "flex_attention", "flash_attention_2"])
def test_known_attention(name: str | None):
    check_attention(name)


@pytest.mark.parametrize("name", ["sdpa_of_my_own", "paged|eager", "paged|flash_attention_2"])
def test_unknown_attention(name: str):
    with pytest.raises(ValueError, match="nothing is known to keep packed samples apart"):
        check_attention(name)


def windows(kind: str):
    sizes = {
        "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.1, "sliding_window": 6,
    }  # fmt: skip
    if kind == "every layer":
        return MistralConfig(**sizes)
    layers = ["full_attention", "sliding_attention"]
    return Qwen3Config(**sizes, use_sliding_window=True, layer_types=layers)


@pytest.mark.parametrize("implementation", [PACKED_SDPA, "sdpa", "eager"])
@pytest.mark.parametrize("kind", ["every layer", "one layer"])
def test_sliding_windows_shorter_than_samples(kind: str, implementation: str):
    native = native_model(windows(kind))
    model = prepared_copy(native)
    model.config._attn_implementation = implementation
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    wanted = separate_logits(native, ids, ROWS)
    found = model(ids, seq_idx=seq_idx).logits
    assert difference(found, wanted) <= 2e-5
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2))
    error = gradient_error(gradients(model, (found * weights).sum()), gradients(native, (wanted * weights).sum()))
    assert error <= 1e-4
    wide = windows(kind)
    wide.sliding_window = 64
    with torch.no_grad():
        assert difference(separate_logits(native_model(wide), ids, ROWS), wanted) > 1e-2, "the window matters"


def test_no_square_of_the_row_is_made():
    """A row of many samples must cost the sum of the squared lengths: no score matrix of the row is formed."""
    shapes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.nn.functional.scaled_dot_product_attention:
                shapes.append((args[0].shape[2], (kwargs or {}).get("attn_mask")))
            return result

    inputs = tensors(4, 2)
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    with Watch():
        packed_sdpa(module, *inputs, None, sample_lengths=torch.tensor([40, 1, 23, 7, 57]))
    assert [length for length, _ in shapes] == [40, 1, 23, 7, 57]
    assert all(mask is None for _, mask in shapes)
