"""The chunked scan equals the recurrence (values and gradients)."""

import pytest
import torch

from llm.causal_conv import causal_conv
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
