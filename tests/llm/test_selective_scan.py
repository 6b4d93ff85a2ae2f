"""The Mamba-1 scan in blocks and segments equals the recurrence: values, gradients, packed samples, states."""

import pytest
import torch

import llm.selective_scan as module
from llm.selective_scan import selective_scan, selective_scan_sequential


def make_inputs(length=53, seed=0):
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.randn(*shape, generator=g)

    channels, size = 6, 4
    inputs = {
        "x": rand(2, length, channels), "dt": rand(2, length, channels), "A": -rand(channels, size).exp(),
        "B": rand(2, length, size), "C": rand(2, length, size), "D": rand(channels), "dt_bias": rand(channels),
    }  # fmt: skip
    return inputs, rand(2, channels, size)


def numbers(*rows: list[int]) -> torch.Tensor:
    """Sample lengths of each row -> seq_idx."""
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows])


@pytest.mark.parametrize(("at_once", "segment"), [(1, 1 << 20), (1 << 16, 1 << 20), (200, 480), (1 << 16, 48)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_blocks_and_segments_equal_the_recurrence(monkeypatch, at_once, segment, packed, with_state):
    monkeypatch.setattr(module, "STATES_AT_ONCE", at_once)
    monkeypatch.setattr(module, "SEGMENT_ELEMENTS", segment)
    inputs, state = make_inputs()
    options = {"dt_softplus": True, "seq_idx": numbers([5, 1, 20, 27], [30, 23]) if packed else None}
    found = []
    for scan in (selective_scan, selective_scan_sequential):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        start = state.clone().requires_grad_() if with_state else None
        y, last = scan(**leaves, **options, initial_states=start)
        (y.square().sum() + last.sum()).backward()
        grads = [leaf.grad for leaf in leaves.values()] + ([start.grad] if with_state else [])
        found.append([y.detach(), last.detach(), *grads])
    for got, want in zip(*found):
        assert (got - want).norm() <= 1e-5 * want.norm()


def test_samples_do_not_see_each_other():
    inputs, _ = make_inputs()
    x = inputs.pop("x").requires_grad_()
    lengths = [5, 1, 20, 27]
    seq_idx = numbers(lengths, lengths)
    packed, _ = selective_scan(x, **inputs, dt_softplus=True, seq_idx=seq_idx)
    (grad,) = torch.autograd.grad(packed[:, 6:].sum(), x)
    assert not grad[:, :6].any() and grad[:, 6:].any()
    start = 0
    for length in lengths:
        cut = {k: v[:, start : start + length] if k in ("dt", "B", "C") else v for k, v in inputs.items()}
        alone, _ = selective_scan(x[:, start : start + length], **cut, dt_softplus=True)
        torch.testing.assert_close(packed[:, start : start + length], alone, rtol=1e-5, atol=1e-5)
        start += length
    together, _ = selective_scan(x, **inputs, dt_softplus=True)
    assert (together - packed).abs().max() > 1e-2, "the control: without numbers the state runs on"


def test_state_carries_over_and_extreme_steps_stay_finite():
    inputs, _ = make_inputs()
    whole, last = selective_scan(**inputs, dt_softplus=True)

    def cut(a, b):
        return {k: v[:, a:b] if k in ("x", "dt", "B", "C") else v for k, v in inputs.items()}

    _, state = selective_scan(**cut(0, 20), dt_softplus=True)
    rest, again = selective_scan(**cut(20, 53), dt_softplus=True, initial_states=state)
    torch.testing.assert_close(rest, whole[:, 20:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, last, rtol=1e-5, atol=1e-5)
    inputs["dt"] = torch.where(inputs["dt"] > 0, 1e3, -60.0).requires_grad_()
    inputs["A"] = (inputs["A"] * 100).requires_grad_()
    y, _ = selective_scan(**inputs, dt_softplus=True)
    y.sum().backward()
    assert y.isfinite().all() and inputs["A"].grad.isfinite().all() and inputs["dt"].grad.isfinite().all()


def test_shapes_that_do_not_fit_are_named():
    inputs, _ = make_inputs()
    with pytest.raises(ValueError, match=r"B has shape \(2, 53, 3\).*must be \(2, 53, 4\)"):
        selective_scan(**{**inputs, "B": inputs["B"][..., :3]})
    with pytest.raises(ValueError, match="seq_idx is of shape"):
        selective_scan(**inputs, seq_idx=torch.zeros(2, 7, dtype=torch.long))
