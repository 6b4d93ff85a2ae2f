"""The shift-and-add convolution equals conv1d on every sample alone: values, gradients, left context, blocks."""

import pytest
import torch
import torch.nn.functional as F

from llm import causal_conv as module
from llm.causal_conv import causal_conv
from tests.helpers.scan_cases import errors, random_samples


def inputs_of(length: int, taps: int, batch: int = 2, width: int = 6, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    before = (batch, taps - 1, width)
    shapes = {"x": (batch, length, width), "weight": (width, taps), "bias": (width,), "initial": before}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def conv1d_of_samples(x, weight, bias=None, seq_idx=None, initial=None):
    """The twin: every sample alone through conv1d, the first one behind its left context, the others behind zeros."""
    rows = []
    for i in range(x.shape[0]):
        ids = [0] * x.shape[1] if seq_idx is None else seq_idx[i].tolist()
        cuts = [0, *(t for t in range(1, len(ids)) if ids[t] != ids[t - 1]), len(ids)]
        found = []
        for start, end in zip(cuts, cuts[1:]):
            zeros = x.new_zeros(weight.shape[1] - 1, x.shape[2])
            left = initial[i] if initial is not None and start == 0 else zeros
            sample = torch.cat([left, x[i, start:end]]).t().unsqueeze(0)
            found.append(F.conv1d(sample, weight.unsqueeze(1), bias, groups=x.shape[2])[0].t())
        rows.append(torch.cat(found))
    return torch.stack(rows)


def run(convolve, inputs: dict, seq_idx=None) -> dict[str, torch.Tensor]:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    y = convolve(**leaves, seq_idx=seq_idx)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y))
    return {"y": y.detach()} | {name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in leaves.items()}


@pytest.mark.parametrize("at_once", [1 << 17, 40])
@pytest.mark.parametrize("length", [1, 2, 3, 50])
@pytest.mark.parametrize("taps", [1, 2, 4, 20])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("names", ["x weight", "x weight bias initial"])
def test_equals_conv1d_of_samples(monkeypatch, at_once, length, taps, packed, names):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    inputs = {name: tensor for name, tensor in inputs_of(length, taps).items() if name in names}
    seq_idx = random_samples(2, length, 0.3) if packed else None
    found, wanted = run(causal_conv, inputs, seq_idx), run(conv1d_of_samples, inputs, seq_idx)
    assert max(errors(found, wanted).values()) < 1e-5


def test_a_number_that_returns_is_another_sample():
    inputs, seq_idx = inputs_of(12, 4), torch.tensor([[0] * 5 + [1] + [0] * 6, [3] * 2 + [1] * 2 + [3] * 8])
    found, wanted = run(causal_conv, inputs, seq_idx), run(conv1d_of_samples, inputs, seq_idx)
    assert max(errors(found, wanted).values()) < 1e-5
    assert (causal_conv(**inputs) - found["y"]).abs().max() > 1e-2, "the control reaches into other samples"


def test_context_continues_a_sequence():
    inputs = inputs_of(30, 4)
    x = inputs.pop("x")
    whole = causal_conv(x, **inputs)
    first = causal_conv(x[:, :2], **inputs)
    left = torch.cat([inputs.pop("initial"), x[:, :2]], 1)[:, -3:]
    torch.testing.assert_close(torch.cat([first, causal_conv(x[:, 2:], **inputs, initial=left)], 1), whole)


def test_bf16_sums_in_fp32():
    inputs = {name: tensor.bfloat16() for name, tensor in inputs_of(50, 4).items()}
    wanted = conv1d_of_samples(**{name: tensor.float() for name, tensor in inputs.items()})
    found = causal_conv(**inputs)
    assert found.dtype == torch.bfloat16
    rounding = (found.float() - wanted).abs() / wanted.abs()
    assert rounding.max() < 1.01 * 2**-8, "rounded once, at the end"


def test_compiles_in_one_piece():
    torch._dynamo.reset()
    compiled = torch.compile(causal_conv, backend="aot_eager", fullgraph=True)
    inputs, seq_idx = inputs_of(37, 4), random_samples(2, 37, 0.1)
    found, wanted = run(compiled, inputs, seq_idx), run(conv1d_of_samples, inputs, seq_idx)
    assert max(errors(found, wanted).values()) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(6, 1, 4)}, r"weight is of shape \(6, 1, 4\).* 6 channels"),
        ({"weight": torch.zeros(5, 4)}, r"weight is of shape \(5, 4\).* 6 channels"),
        ({"initial": torch.zeros(2, 4, 6)}, r"initial is of shape \(2, 4, 6\).*\(2, 3, 6\)"),
        ({"seq_idx": torch.zeros(2, 9).long()}, r"seq_idx is of shape \(2, 9\).*\(2, 10\)"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        causal_conv(**{**inputs_of(10, 4), **change})
