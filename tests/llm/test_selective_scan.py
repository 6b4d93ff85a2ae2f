"""The Mamba-1 scan in lanes equals the recurrence: values, every gradient, packed samples, extreme steps, bf16."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from llm import selective_scan as module
from llm.selective_scan import selective_scan, selective_scan_sequential
from tests.helpers.scan_cases import errors, extreme, random_samples, run, selective_inputs


def without(inputs: dict, *names: str) -> dict:
    return {name: tensor for name, tensor in inputs.items() if name not in names}


def worst(inputs: dict, **options) -> float:
    """Largest error of the scan against its twin, over values and gradients."""
    wanted = run(selective_scan_sequential, inputs, exact=True, **options)
    return max(errors(run(selective_scan, inputs, **options), wanted).values())


@pytest.mark.parametrize("length", [1, 2, 3, 37, 64])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_equals_sequential(length, packed, with_state):
    inputs = selective_inputs(length=length)
    inputs = inputs if with_state else without(inputs, "initial_states", "D", "dt_bias")
    seq_idx = random_samples(2, length, 0.1) if packed else None
    assert worst(inputs, dt_softplus=True, seq_idx=seq_idx) < 1e-5


@pytest.mark.parametrize("segment", [1, 400, 2000])
@pytest.mark.parametrize("together", [1, 200, 700])
@pytest.mark.parametrize("chance", [0.0, 0.03, 0.5])
def test_cut_into_segments_and_lanes(monkeypatch, segment, together, chance):
    """As long sequences are: one lane or several, segments that end inside a lane, samples that begin anywhere."""
    monkeypatch.setitem(module._SEGMENT, "cpu", segment)
    monkeypatch.setitem(module._TOGETHER, "cpu", together)
    inputs = selective_inputs(length=61)
    assert worst(inputs, dt_softplus=True, seq_idx=random_samples(2, 61, chance)) < 1e-5


def test_samples_are_what_they_are_alone():
    inputs = without(selective_inputs(batch=1, length=40), "initial_states")
    seq_idx = torch.tensor([[0] * 13 + [1] * 27])

    def cut(start, end):
        return {k: v[:, start:end] if k in ("x", "dt", "B", "C") else v for k, v in inputs.items()}

    packed, state = selective_scan(**inputs, dt_softplus=True, seq_idx=seq_idx)
    leaking, _ = selective_scan(**inputs, dt_softplus=True)
    alone = [selective_scan(**cut(*part), dt_softplus=True) for part in ((0, 13), (13, 40))]
    torch.testing.assert_close(packed, torch.cat([y for y, _ in alone], 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, alone[1][1], atol=1e-5, rtol=1e-5)
    assert (leaking - packed).norm() / packed.norm() > 1e-2, "the control leaks"

    first, state = selective_scan(**cut(0, 13), dt_softplus=True)
    second, _ = selective_scan(**cut(13, 39), dt_softplus=True, initial_states=state)
    torch.testing.assert_close(torch.cat([first, second], 1), leaking[:, :39], atol=1e-5, rtol=1e-5)


def test_no_gradient_reaches_another_sample():
    inputs = {name: tensor.requires_grad_() for name, tensor in selective_inputs(length=40).items()}
    seq_idx = (torch.arange(40) >= 13).long().expand(2, 40)
    for packed in (True, False):
        y, last = selective_scan(**inputs, dt_softplus=True, seq_idx=seq_idx if packed else None)
        grads = torch.autograd.grad(y[:, 13:].sum() + last.sum(), [inputs[k] for k in ("x", "dt", "B")])
        reached = [grad[:, :13].abs().max().item() for grad in grads]
        assert (max(reached) == 0) if packed else (min(reached) > 0), "exactly zero, and the control is not"


@pytest.mark.parametrize("decay", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("powers", [(-8, 3), (-8, -7), (2, 3)])
def test_extreme_steps(powers, decay):
    inputs = extreme(selective_inputs(length=150), *powers, decay=decay)
    assert worst(inputs) < 1e-4
    assert worst(inputs, seq_idx=random_samples(2, 150, 0.03)) < 1e-4


@pytest.mark.parametrize("steps", ["usual", "extreme"])
def test_bf16(steps):
    inputs = selective_inputs(length=150, dtype=torch.bfloat16)
    inputs, options = (inputs, {"dt_softplus": True}) if steps == "usual" else (extreme(inputs), {})
    y, last = selective_scan(**inputs, **options)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert worst(inputs, **options, seq_idx=random_samples(2, 150, 0.03)) < 2e-2


def test_autocast_changes_nothing():
    inputs = selective_inputs()
    wanted = run(selective_scan, inputs, dt_softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(selective_scan, inputs, dt_softplus=True)
    assert max(errors(found, wanted).values()) == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    inputs, seq_idx = selective_inputs(), random_samples(2, 37, 0.1)

    def scan(x, dt, A, B, C, D, dt_bias, initial_states):
        return selective_scan(x, dt, A, B, C, D, dt_bias, True, seq_idx, initial_states)

    wanted = run(scan, inputs)
    found = run(lambda **leaves: checkpoint(scan, *leaves.values(), use_reentrant=reentrant), inputs)
    assert max(errors(found, wanted).values()) == 0


def test_compiles_in_one_piece(monkeypatch):
    monkeypatch.setitem(module._SEGMENT, "cpu", 400)  # 5 positions
    torch._dynamo.reset()
    compiled = torch.compile(selective_scan, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (37, 50):
        inputs, seq_idx = selective_inputs(length=length), random_samples(2, length, 0.1)
        found = run(compiled, inputs, dt_softplus=True, seq_idx=seq_idx)
        wanted = run(selective_scan_sequential, inputs, dt_softplus=True, seq_idx=seq_idx)
        assert max(errors(found, wanted).values()) < 1e-5


def test_the_operator_keeps_the_rules_of_pytorch():
    """Shapes it promises the compiler, no argument changed, gradients registered."""
    inputs = selective_inputs(length=20)
    arguments = (
        inputs["x"], inputs["dt"].exp(), inputs["A"].t(), inputs["B"], inputs["C"], inputs["D"],
        inputs["initial_states"].transpose(1, 2), (random_samples(2, 20, 0.1) % 2).float(),
    )  # fmt: skip
    for t in arguments[:7]:
        t.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(module._scan, arguments, test_utils=checks)


@pytest.mark.gpu
def test_gpu():
    inputs = selective_inputs(length=300, width=64, state=16)
    seq_idx = random_samples(2, 300, 0.03)
    wanted = run(selective_scan_sequential, inputs, dt_softplus=True, seq_idx=seq_idx)

    def scan(**leaves):
        return selective_scan(**{k: v.cuda() for k, v in leaves.items()}, dt_softplus=True, seq_idx=seq_idx.cuda())

    assert max(errors(run(scan, inputs), wanted).values()) < 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": torch.zeros(2, 36, 8)}, r"dt is of shape \(2, 36, 8\).* it is \(2, 37, 8\)"),
        ({"A": torch.zeros(7, 5)}, r"A is of shape \(7, 5\).* it is \(8, 5\)"),
        ({"C": torch.zeros(2, 37, 8)}, r"C is of shape .* it is \(2, 37, 5\)"),
        ({"initial_states": torch.zeros(2, 5, 8)}, r"initial_states is of shape .* it is \(2, 8, 5\)"),
        ({"seq_idx": torch.zeros(2, 36).long()}, r"seq_idx is of shape \(2, 36\).*\(2, 37\)"),
        ({"x": torch.zeros(0, 37, 8)}, "none of them empty"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**selective_inputs(), **change})
