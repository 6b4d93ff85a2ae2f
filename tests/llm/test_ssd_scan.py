"""The chunked Mamba-2 scan equals the recurrence: values, every gradient, packed samples, extreme steps, bf16."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from llm import ssd_autograd
from llm.ssd_scan import ssd_scan, ssd_scan_sequential
from tests.helpers.scan_cases import errors, extreme, random_samples, run, ssd_inputs


def without(inputs: dict, *names: str) -> dict:
    return {name: tensor for name, tensor in inputs.items() if name not in names}


def worst(inputs: dict, **options) -> float:
    """Largest error of the scan against its twin, over values and gradients."""
    return max(
        errors(run(ssd_scan, inputs, **options), run(ssd_scan_sequential, inputs, exact=True, **options)).values()
    )


@pytest.mark.parametrize("chunk_size", [1, 8, 37, 64])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_chunked_equals_sequential(chunk_size, packed, with_state):
    inputs = ssd_inputs() if with_state else without(ssd_inputs(), "initial_states")
    seq_idx = torch.tensor([[0] * 5 + [1] * 20 + [2] * 12, [0] * 8 + [1] * 29]) if packed else None
    options = {"chunk_size": chunk_size, "dt_softplus": True, "dt_limit": (0.01, 2.0), "seq_idx": seq_idx}
    assert worst(inputs, **options) < 1e-5


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 23])
def test_any_length(length):
    assert worst(ssd_inputs(length=length), chunk_size=8, dt_softplus=True) < 1e-5


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_any_number_of_groups(groups):
    assert worst(ssd_inputs(groups=groups), chunk_size=8, dt_softplus=True) < 1e-5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("chance", [0.02, 0.3, 0.9])
def test_random_samples(seed, chance):
    """From samples of several chunks to rows of samples of length 1, boundaries anywhere."""
    inputs = ssd_inputs(length=70, seed=seed)
    assert worst(inputs, chunk_size=8, dt_softplus=True, seq_idx=random_samples(2, 70, chance, seed)) < 1e-5


def test_samples_that_end_where_chunks_do():
    lengths = [[8, 8, 1, 7, 24, 1, 1, 6], [1, 7, 16, 1, 15, 16]]  # chunks of 8: boundaries on and off their edges
    seq_idx = torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths])
    inputs = ssd_inputs(length=56)
    options = {"chunk_size": 8, "dt_softplus": True}
    assert worst(inputs, **options, seq_idx=seq_idx) < 1e-5
    packed, leaking = run(ssd_scan, inputs, **options, seq_idx=seq_idx), run(ssd_scan, inputs, **options)
    assert errors(packed, leaking)["y"] > 1e-2, "the control leaks"


def test_a_number_that_returns_is_another_sample():
    seq_idx = torch.tensor([[0] * 3 + [1] * 2 + [0] * 32, [5] * 20 + [2] * 17])
    assert worst(ssd_inputs(), chunk_size=16, dt_softplus=True, seq_idx=seq_idx) < 1e-5


def test_samples_are_what_they_are_alone():
    inputs = without(ssd_inputs(batch=1, length=40), "initial_states")
    seq_idx = torch.tensor([[0] * 13 + [1] * 27])
    packed, _ = ssd_scan(**inputs, chunk_size=8, dt_softplus=True, seq_idx=seq_idx)
    alone = [ssd_scan(**cut(inputs, *part), chunk_size=8, dt_softplus=True)[0] for part in ((0, 13), (13, 40))]
    torch.testing.assert_close(packed, torch.cat(alone, 1), atol=1e-5, rtol=1e-5)


def test_no_gradient_reaches_another_sample():
    inputs = {name: tensor.requires_grad_() for name, tensor in ssd_inputs(length=40).items()}
    seq_idx = (torch.arange(40) >= 13).long().expand(2, 40)
    for packed in (True, False):
        y, last = ssd_scan(**inputs, chunk_size=16, dt_softplus=True, seq_idx=seq_idx if packed else None)
        grads = torch.autograd.grad(y[:, 13:].sum() + last.sum(), [inputs[k] for k in ("x", "dt", "B")])
        reached = [grad[:, :13].abs().max().item() for grad in grads]
        assert (max(reached) == 0) if packed else (min(reached) > 0), "exactly zero, and the control is not"


def cut(inputs: dict, start: int, end: int) -> dict:
    return {k: v[:, start:end] if k in ("x", "dt", "B", "C") else v for k, v in inputs.items()}


def test_state_carries_over():
    inputs = without(ssd_inputs(), "initial_states")
    options = {"chunk_size": 8, "dt_softplus": True}
    whole, last = ssd_scan(**inputs, **options)
    first, state = ssd_scan(**cut(inputs, 0, 20), **options)
    second, state = ssd_scan(**cut(inputs, 20, 36), **options, initial_states=state)
    third, state = ssd_scan(**cut(inputs, 36, 37), **options, initial_states=state)
    torch.testing.assert_close(torch.cat([first, second, third], 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 300, 1000])
def test_cut_into_blocks(monkeypatch, at_once):
    """As long sequences and large batches are: rows apart, blocks of one and of several chunks, a short chunk last."""
    monkeypatch.setitem(ssd_autograd._DECAYS_AT_ONCE, "cpu", at_once)
    inputs = ssd_inputs(batch=3, length=61)
    assert worst(inputs, chunk_size=8, dt_softplus=True, seq_idx=random_samples(3, 61, 0.05)) < 1e-5


@pytest.mark.parametrize("decay", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("powers", [(-8, 3), (-8, -7), (2, 3)])
@pytest.mark.parametrize("packed", [False, True])
def test_extreme_steps(powers, decay, packed):
    inputs = extreme(ssd_inputs(length=150), *powers, decay=decay)
    assert worst(inputs, chunk_size=64, seq_idx=random_samples(2, 150, 0.03) if packed else None) < 1e-4


def test_steps_of_nothing_and_of_everything():
    """A step of 0 changes nothing, one of 1e30 forgets everything; neither leaves a NaN behind."""
    inputs = without(ssd_inputs(length=20), "dt_bias", "D")
    inputs["dt"] = torch.zeros(2, 20, 4)
    found = run(ssd_scan, inputs, chunk_size=8)
    assert not found["y"].isnan().any()
    torch.testing.assert_close(found["last state"], inputs["initial_states"])
    inputs["dt"][:, 12] = 1e30
    inputs["x"][:, 12] = 0
    found = run(ssd_scan, inputs, chunk_size=8)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert found["last state"].abs().max() == 0


@pytest.mark.parametrize("steps", ["usual", "extreme"])
@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_bf16(monkeypatch, steps, products):
    """bf16 inputs, with products in fp32 (CPUs) and in bf16 (accelerators); the twin sees the same numbers in fp32."""
    monkeypatch.setattr(ssd_autograd, "_type_of_products", lambda x: products)
    inputs = ssd_inputs(length=150, dtype=torch.bfloat16)
    inputs, options = (inputs, {"dt_softplus": True}) if steps == "usual" else (extreme(inputs), {})
    y, last = ssd_scan(**inputs, chunk_size=64, **options)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert worst(inputs, chunk_size=64, **options, seq_idx=random_samples(2, 150, 0.03)) < 2e-2


def test_autocast_changes_nothing():
    inputs = ssd_inputs()
    wanted = run(ssd_scan, inputs, chunk_size=8, dt_softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(ssd_scan, inputs, chunk_size=8, dt_softplus=True)
    assert max(errors(found, wanted).values()) == 0


def test_skip_weights_of_every_channel():
    inputs = without(ssd_inputs(), "D")
    weights = torch.randn(4, 8)
    assert worst(inputs | {"D": weights}, chunk_size=8, dt_softplus=True) < 1e-5
    found, _ = ssd_scan(**inputs, D=weights, chunk_size=8, dt_softplus=True)
    bare, _ = ssd_scan(**inputs, chunk_size=8, dt_softplus=True)
    torch.testing.assert_close(found - bare, inputs["x"] * weights, atol=1e-5, rtol=1e-5)


def test_backward_keeps_nothing_between_positions():
    inputs = {name: tensor.requires_grad_() for name, tensor in ssd_inputs(length=512).items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        ssd_scan(**inputs, chunk_size=128, dt_softplus=True)
    per_position = 4 * 8 + 2 * 2 * 6 + 6 * 4  # x, B, C and what the steps are made of
    assert sum(kept) < 512 * 2 * per_position * 1.1 < 512 * 2 * 4 * 128


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    inputs, seq_idx = ssd_inputs(), random_samples(2, 37, 0.1)

    def scan(x, dt, A, B, C, D, dt_bias, initial_states):
        options = {"dt_softplus": True, "seq_idx": seq_idx, "initial_states": initial_states}
        return ssd_scan(x, dt, A, B, C, 8, D, dt_bias, **options)

    wanted = run(scan, inputs)
    found = run(lambda **leaves: checkpoint(scan, *leaves.values(), use_reentrant=reentrant), inputs)
    assert max(errors(found, wanted).values()) == 0


@pytest.mark.parametrize("opaque", [True, False])
def test_compiles_in_one_piece(monkeypatch, opaque):
    """As one operator, as on CPUs, and traced, as on GPUs."""
    if not opaque:
        monkeypatch.setattr(ssd_autograd, "_opaque_scan", ssd_autograd._Scan.apply)
    torch._dynamo.reset()
    compiled = torch.compile(ssd_scan, backend="aot_eager", fullgraph=True, dynamic=opaque)
    for length in (37, 50) if opaque else (37,):
        inputs, seq_idx = ssd_inputs(length=length), random_samples(2, length, 0.1)
        found = run(compiled, inputs, chunk_size=8, dt_softplus=True, seq_idx=seq_idx)
        wanted = run(ssd_scan_sequential, inputs, chunk_size=8, dt_softplus=True, seq_idx=seq_idx)
        assert max(errors(found, wanted).values()) < 1e-5


def test_the_operator_keeps_the_rules_of_pytorch():
    """Shapes it promises the compiler, no argument changed, gradients registered."""
    inputs = ssd_inputs(length=20)
    by_group = {k: inputs[k].unflatten(2, (2, 2)) for k in ("x", "dt")}
    arguments = (
        by_group["x"], by_group["dt"].exp(), -by_group["dt"].exp(), inputs["B"], inputs["C"],
        inputs["D"].view(2, 2, 1), inputs["initial_states"].unflatten(1, (2, 2)), random_samples(2, 20, 0.1).int(), 8,
    )  # fmt: skip
    for t in arguments[:7]:
        t.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(ssd_autograd._opaque_scan, arguments, test_utils=checks)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [False, True])
def test_gpu(dtype, compiled):
    inputs = ssd_inputs(length=300, width=64, state=64, dtype=dtype)
    options = {"chunk_size": 64, "dt_softplus": True, "seq_idx": random_samples(2, 300, 0.03)}
    wanted = run(ssd_scan_sequential, inputs, exact=True, **options)
    scan = torch.compile(ssd_scan, fullgraph=True) if compiled else ssd_scan
    options["seq_idx"] = options["seq_idx"].cuda()
    found = run(lambda **leaves: scan(**{k: v.cuda() for k, v in leaves.items()}, **options), inputs)
    assert max(errors(found, wanted).values()) < (1e-4 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"B": torch.zeros(2, 37, 3, 6), "C": torch.zeros(2, 37, 3, 6)}, r"heads \(4\) .* number of groups \(3\)"),
        ({"dt": torch.zeros(2, 36, 4)}, r"dt is of shape \(2, 36, 4\).* it is \(2, 37, 4\)"),
        ({"C": torch.zeros(2, 37, 2, 5)}, r"C is of shape .* it is \(2, 37, 2, 6\)"),
        ({"D": torch.zeros(5)}, r"D is of shape \(5,\).* it is \(4,\)"),
        ({"initial_states": torch.zeros(2, 4, 6, 8)}, r"initial_states is of shape .* it is \(2, 4, 8, 6\)"),
        ({"seq_idx": torch.zeros(2, 36).long()}, r"seq_idx is of shape \(2, 36\).*\(2, 37\)"),
        ({"seq_idx": torch.zeros(2, 37)}, "seq_idx is of type torch.float32"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"x": torch.zeros(2, 0, 4, 8)}, "none of them empty"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        ssd_scan(**{**ssd_inputs(), "chunk_size": 8, **change})
