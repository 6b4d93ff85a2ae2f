"""The chunked scan equals the recurrence (values and gradients), and the fast mixer equals the one of transformers."""

import pytest
import torch
from transformers import AutoModelForCausalLM, NemotronHConfig

from llm.fast_mixer import causal_conv, undo_fast_scan, use_fast_scan
from llm.ssd_scan import ssd_scan, ssd_scan_sequential


def make_inputs(length=37, groups=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    heads, dim, state = 4, 8, 6

    def rand(*shape):
        return torch.randn(*shape, generator=g)

    inputs = {
        "x": rand(2, length, heads, dim),
        "dt": rand(2, length, heads),
        "A": -rand(heads).exp(),
        "B": rand(2, length, groups, state),
        "C": rand(2, length, groups, state),
        "D": rand(heads),
        "dt_bias": rand(heads),
    }
    return inputs, rand(2, heads, dim, state)


@pytest.mark.parametrize("chunk_size", [1, 8, 37, 64])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_chunked_equals_sequential(chunk_size, packed, with_state):
    inputs, state = make_inputs()
    seq_idx = torch.tensor([[0] * 5 + [1] * 20 + [2] * 12, [0] * 8 + [1] * 29]) if packed else None
    options = {"chunk_size": chunk_size, "dt_softplus": True, "dt_limit": (0.01, 2.0), "seq_idx": seq_idx}
    options["initial_states"] = state if with_state else None
    results = []
    for scan in (ssd_scan, ssd_scan_sequential):
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        y, last = scan(**leaves, **options)
        (y.square().sum() + last.sum()).backward()
        results.append((y, last, [leaf.grad for leaf in leaves.values()]))
    (y, last, grads), (y2, last2, grads2) = results
    torch.testing.assert_close(y, y2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last, last2, atol=1e-4, rtol=1e-4)
    for a, b in zip(grads, grads2):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


def test_state_carries_over():
    inputs, _ = make_inputs()
    inputs.pop("dt_bias")
    inputs["dt"] = inputs["dt"].abs()
    whole, last = ssd_scan(**inputs, chunk_size=8)

    def cut(a, b):
        return {k: v[:, a:b] if k in ("x", "dt", "B", "C") else v for k, v in inputs.items()}

    first, state = ssd_scan(**cut(0, 20), chunk_size=8)
    second, last2 = ssd_scan(**cut(20, 37), chunk_size=8, initial_states=state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last2, last, atol=1e-4, rtol=1e-4)


def test_heads_must_divide_into_groups():
    inputs, _ = make_inputs(groups=3)
    with pytest.raises(ValueError, match="multiple of the number of groups"):
        ssd_scan(**inputs, chunk_size=8)


def test_causal_conv_equals_conv1d():
    x, w, b = torch.randn(2, 11, 6), torch.randn(6, 4), torch.randn(6)
    want = torch.nn.functional.conv1d(x.transpose(1, 2), w[:, None], b, padding=3, groups=6)[..., :11].transpose(1, 2)
    torch.testing.assert_close(causal_conv(x, w, b), want)


def tiny_model():
    torch.manual_seed(0)
    config = NemotronHConfig(
        vocab_size=64, hidden_size=32, hybrid_override_pattern="M*-M", num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, intermediate_size=64, mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=8, n_groups=2,
        chunk_size=16, initializer_range=0.2,
    )
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("padding", [False, True])
def test_fast_mixer_equals_transformers(padding):
    model = tiny_model().train()
    ids = torch.randint(1, 64, (2, 41))
    mask = torch.ones_like(ids)
    if padding:
        mask[1, 30:] = 0
    names = list(model.state_dict())
    results = []
    for fast in (False, True):
        if fast:
            assert use_fast_scan(model) == 2 and use_fast_scan(model) == 2
        model.zero_grad()
        out = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=False)
        out.loss.backward()
        results.append((out.logits[mask.bool()], [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-4, rtol=1e-4)
    for a, b in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    assert list(model.state_dict()) == names


def test_generation_is_untouched_and_undo_works():
    model = tiny_model().eval()
    ids = torch.randint(1, 64, (1, 9))
    before = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    use_fast_scan(model)
    after = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(before, after)
    undo_fast_scan(model)
    assert all("forward" not in m.__dict__ for m in model.modules())


def test_packed_equals_alone():
    model = tiny_model().eval()
    use_fast_scan(model)
    mixer = model.model.layers[0].mixer
    a, b = torch.randn(1, 13, 32), torch.randn(1, 20, 32)
    seq_idx = torch.tensor([[0] * 13 + [1] * 20])
    with torch.no_grad():
        packed = mixer(torch.cat([a, b], 1), seq_idx=seq_idx)
        alone = torch.cat([mixer(a), mixer(b)], 1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-4)
