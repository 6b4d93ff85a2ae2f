"""Every path of the chunked loss equals full logits in value and gradients, holds one chunk, and refuses bad input."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from llm.linear_cross_entropy import (
    head_cross_entropy_sum,
    linear_cross_entropy,
    linear_cross_entropy_full,
    linear_cross_entropy_sum,
    linear_cross_entropy_sum_full,
)

paths = sys.modules["llm.linear_cross_entropy_paths"]
V, D = 50, 16
OPTIONS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "bias": {"bias": True},
    "softcap": {"softcap": 2.0},
    "weights": {"token_weights": True},
    "all": {"scale": 2.5, "bias": True, "softcap": 3.0, "token_weights": True},
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(paths, "CHUNK_BYTES", 7 * 4 * V)
    monkeypatch.setattr(paths, "WEIGHT_ROWS", 13)


@pytest.fixture(params=["ours", "torch"])
def path(request, monkeypatch):
    """Without torch's own loss the chunk loop does everything; with it, what it covers."""
    if request.param == "ours":
        monkeypatch.setattr(paths, "_torch_covers", lambda dtype: False)
    elif not hasattr(F, "linear_cross_entropy"):
        pytest.skip("optional package absent: torch 2.13")


def make_inputs(shape=(3, 11), dtype=torch.float32, seed=0, ignored=0.4, **options):
    """Leaves hidden, weight (and bias), labels, and the options as arguments."""
    options = {name: value for name, value in options.items() if value}
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, D, generator=g).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=g).to(dtype).requires_grad_()
    labels = torch.randint(0, V, shape, generator=g)
    labels[torch.rand(shape, generator=g) < ignored] = -100
    if options.get("bias"):
        options["bias"] = torch.randn(V, generator=g).to(dtype).requires_grad_()
    if options.get("token_weights"):
        options["token_weights"] = torch.rand(shape, generator=g) * (torch.rand(shape, generator=g) < 0.8)
    if options.get("z_weights"):
        options["z_weights"] = torch.rand(shape, generator=g)
    return hidden, weight, labels, options


def value_and_gradients(function, hidden, weight, labels, options):
    leaves = [leaf for leaf in (hidden, weight, options.get("bias")) if leaf is not None and leaf.requires_grad]
    value = function(hidden, weight, labels, **options)
    # an upstream gradient other than 1, as in gradient accumulation
    return [value.detach(), *torch.autograd.grad(0.7 * value, leaves)]


def relative(found, wanted):
    """Largest error of each tensor, relative to the largest number in it."""
    assert len(found) == len(wanted)
    scales = [max(w.abs().max().item(), 1e-30) for w in wanted]
    return max((f.double() - w.double()).abs().max().item() / scale for f, w, scale in zip(found, wanted, scales))


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 11), (2, 2, 5), ()])
def test_equals_full_logits(path, shape, options, dtype, bound):
    inputs = make_inputs(shape, dtype, ignored=0.4 if len(shape) > 1 else 0.0, **options)
    found = value_and_gradients(linear_cross_entropy, *inputs)
    assert found[0].shape == () and found[0].dtype == dtype
    assert relative(found, value_and_gradients(linear_cross_entropy_full, *inputs)) <= bound


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_sum_with_z_loss_equals_full_logits(options):
    hidden, weight, labels, options = make_inputs(z_weights=True, **options)
    with_z = value_and_gradients(linear_cross_entropy_sum, hidden, weight, labels, options)
    assert relative(with_z, value_and_gradients(linear_cross_entropy_sum_full, hidden, weight, labels, options)) <= 1e-5
    without = value_and_gradients(linear_cross_entropy_sum, hidden, weight, labels, options | {"z_weights": None})
    assert relative(without, with_z) > 1e-2


@pytest.mark.parametrize("z", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_losses_of_single_tokens_come_with_the_sum(options, z):
    """Without weights or z-loss in them, 0 where nothing counts; the sum and its gradients stay as they are."""
    hidden, weight, labels, options = make_inputs(z_weights=z, **options)
    bias = options.get("bias")
    plain = value_and_gradients(linear_cross_entropy_sum, hidden, weight, labels, options)
    full, ours, heads = (torch.zeros(labels.shape) for _ in range(3))
    linear_cross_entropy_sum_full(hidden, weight, labels, token_losses=full, **options)
    logits = (hidden @ weight.T + (0 if bias is None else bias)) * options.get("scale", 1)
    if cap := options.get("softcap"):
        logits = cap * torch.tanh(logits / cap)
    counted = (labels != -100) & (options.get("token_weights", torch.ones(labels.shape)) != 0)
    wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape) * counted
    torch.testing.assert_close(full, wanted.detach(), atol=1e-5, rtol=1e-5)
    with_losses = value_and_gradients(
        linear_cross_entropy_sum, hidden, weight, labels, options | {"token_losses": ours}
    )
    assert relative(with_losses, plain) <= 1e-5
    torch.testing.assert_close(ours, full, atol=1e-5, rtol=1e-5)
    head_options = {key: value for key, value in options.items() if key != "bias"}
    head = lambda x: F.linear(x, weight, bias)  # noqa: E731
    head_cross_entropy_sum(head, hidden, labels, rows_per_chunk=7, token_losses=heads, **head_options)
    torch.testing.assert_close(heads, full, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="token_losses .* one for each row"):
        linear_cross_entropy_sum(hidden, weight, labels, token_losses=torch.zeros(2), **options)


def test_z_loss_counts_every_position():
    """The auxiliary loss of Bamba: the mean over all positions of logsumexp², beside a mean over labelled ones."""
    hidden, weight, labels, _ = make_inputs()
    n, coefficient = int((labels != -100).sum()), 0.01
    z_weights = torch.full(labels.shape, coefficient * n / labels.numel())
    found = linear_cross_entropy_sum(hidden, weight, labels, z_weights=z_weights) / n
    logits = hidden @ weight.T
    wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(found, wanted + coefficient * logits.logsumexp(-1).square().mean())


def test_plain_is_torch_cross_entropy_and_nothing_is_shifted(path):
    hidden, weight, labels, _ = make_inputs()
    logits = hidden @ weight.T
    found = linear_cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(found, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    shifted = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert (found - shifted).abs() > 1e-2


def test_order_of_bias_scale_and_softcap():
    hidden, weight, labels, options = make_inputs(scale=2.5, softcap=3.0, bias=True, ignored=0)
    found = linear_cross_entropy(hidden, weight, labels, **options)
    logits = 3.0 * torch.tanh(2.5 * (hidden @ weight.T + options["bias"]) / 3.0)
    torch.testing.assert_close(found, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    other = 2.5 * (hidden @ weight.T) + options["bias"]
    assert (found - F.cross_entropy(3.0 * torch.tanh(other / 3.0).flatten(0, 1), labels.flatten())).abs() > 1e-3


def test_token_weights_by_hand():
    hidden, weight, labels, _ = make_inputs((4,), ignored=0)
    labels[1] = -100
    weights = torch.tensor([1.0, 99.0, 0.0, 3.0])  # the second is ignored whatever it weighs
    nll = F.cross_entropy(hidden @ weight.T, labels, reduction="none")
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, labels, weights), (nll[0] + 3 * nll[3]) / 4)
    whole = torch.tensor([1, 99, 0, 3])
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, labels, whole), (nll[0] + 3 * nll[3]) / 4)


@pytest.mark.parametrize("weights", [False, True, "zero"])
def test_nothing_to_learn_is_zero_and_still_reaches_every_parameter(path, weights):
    hidden, weight, labels, options = make_inputs(bias=True, token_weights=bool(weights))
    if weights == "zero":
        options["token_weights"] = torch.zeros(labels.shape)
    else:
        labels[:] = -100
    value, *gradients = value_and_gradients(linear_cross_entropy, hidden, weight, labels, options)
    assert value == 0 and len(gradients) == 3
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)
    empty = linear_cross_entropy(hidden[:0], weight, labels[:0])
    assert empty == 0 and torch.autograd.grad(empty, weight)[0].abs().sum() == 0


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias", "all"])
def test_frozen_inputs(path, frozen):
    hidden, weight, labels, options = make_inputs(bias=True)
    for name, leaf in (("hidden", hidden), ("weight", weight), ("bias", options["bias"])):
        leaf.requires_grad_(frozen not in (name, "all"))
    if frozen == "all":
        assert not linear_cross_entropy(hidden, weight, labels, **options).requires_grad
        return
    wanted = value_and_gradients(linear_cross_entropy_full, hidden, weight, labels, options)
    assert relative(value_and_gradients(linear_cross_entropy, hidden, weight, labels, options), wanted) <= 1e-5


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def largest_tensor(function, *args, **kwargs):
    with LargestTensor() as mode:
        value = function(*args, **kwargs)
        if value.requires_grad:
            value.backward()
    return mode.largest


def test_never_more_than_a_chunk_of_logits(monkeypatch):
    monkeypatch.setattr(paths, "_torch_covers", lambda dtype: False)  # a custom operator shows nothing of its inside
    hidden, weight, labels, options = make_inputs((40, 10), ignored=0, token_weights=True)
    rows = 7  # what the fixture's CHUNK_BYTES gives
    bound = max(rows * V, V * D, hidden.numel())
    assert bound < labels.numel() * V == largest_tensor(linear_cross_entropy_full, hidden, weight, labels)
    assert largest_tensor(linear_cross_entropy, hidden, weight, labels) <= bound
    assert largest_tensor(linear_cross_entropy, hidden, weight, labels, **options) <= bound
    assert largest_tensor(linear_cross_entropy, hidden, weight, labels, softcap=3.0) <= bound


def test_no_gradient_is_formed_for_what_is_frozen_or_not_wanted(monkeypatch):
    monkeypatch.setattr(paths, "_torch_covers", lambda dtype: False)
    hidden, weight, labels, _ = make_inputs((3,), ignored=0)
    for leaves, count in (((hidden, weight), 3), ((hidden, weight.detach()), 2), ((hidden.detach(), weight), 2)):
        assert products(linear_cross_entropy, *leaves, labels) == count
    with torch.no_grad():
        assert products(linear_cross_entropy, hidden, weight, labels) == 1
        assert not linear_cross_entropy(hidden, weight, labels).requires_grad


def products(function, *args, **kwargs):
    """How many matrix products one call makes: 1 for the logits and 1 for each gradient, for one chunk."""

    class Count(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.found += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
            return func(*args, **(kwargs or {}))

    with Count() as mode:
        function(*args, **kwargs)
    return mode.found


def test_used_twice_retained_and_no_more_once_freed(path):
    for options in ({}, {"softcap": 3.0}):
        hidden, weight, labels, options = make_inputs(**options)
        value = linear_cross_entropy(hidden, weight, labels, **options)
        wanted = torch.autograd.grad(linear_cross_entropy_full(hidden, weight, labels, **options), (hidden, weight))
        for factor in (1.0, 2.0, 0.5):  # the second and third are computed again, not read from a spent buffer
            found = torch.autograd.grad((factor - 1) * value + value, (hidden, weight), retain_graph=True)
            assert relative(found, [factor * gradient for gradient in wanted]) <= 1e-5
        torch.autograd.grad(value, (hidden, weight))
        with pytest.raises(RuntimeError, match="second time|freed"):
            torch.autograd.grad(value, (hidden, weight))


def test_second_derivative_is_refused(path):
    hidden, weight, labels, _ = make_inputs()
    (gradient,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), hidden, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def test_tied_embeddings_add_their_gradients(path):
    """The weight is also the embedding, and the loss is called for two packs before one step."""
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, V, (2, 9), generator=g)
    gradients = []
    for function in (linear_cross_entropy, linear_cross_entropy_full):
        embedding = nn.Embedding(V, D)
        with torch.no_grad():
            embedding.weight.copy_(torch.randn(V, D, generator=torch.Generator().manual_seed(1)))
        for row in tokens:
            function(embedding(row[:-1]).tanh(), embedding.weight, row[1:]).backward()
        gradients.append(embedding.weight.grad)
    assert relative(gradients[:1], gradients[1:]) <= 1e-5


def test_gradient_is_given_away_not_copied(path):
    """The buffer of the forward becomes `weight.grad`: a copy would double the head's gradient at its peak."""
    made = []
    inner = paths._value_and_gradients

    def spy(*args):
        value, gradients = inner(*args)
        made.append(gradients[1].data_ptr())
        return value, gradients

    hidden, weight, labels, _ = make_inputs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "_value_and_gradients", spy)
        linear_cross_entropy(hidden, weight, labels).backward()
    assert made == [weight.grad.data_ptr()]


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_low_precision_stays_near_fp32(dtype, bound, options):
    hidden, weight, labels, options = make_inputs((50,), dtype, **options)
    found = value_and_gradients(linear_cross_entropy, hidden, weight, labels, options)
    assert found[0].dtype == torch.float32 and found[1].dtype == found[2].dtype == dtype
    as_fp32 = {name: v.detach().float().requires_grad_() if name == "bias" else v for name, v in options.items()}
    leaves = [tensor.detach().float().requires_grad_() for tensor in (hidden, weight)]
    assert relative(found, value_and_gradients(linear_cross_entropy_full, *leaves, labels, as_fp32)) <= bound


def test_bf16_weight_gradient_does_not_stagnate_over_chunks():
    """1500 chunks add equal parts: summed in bf16 the total stops growing when a part is under half its last bit."""
    hidden = torch.ones(10500, D, dtype=torch.bfloat16)
    weight = torch.zeros(V, D, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(10500, dtype=torch.long)
    (found,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), weight)
    wanted = torch.full((V, D), 1 / V)
    wanted[0] -= 1
    assert relative([found], [wanted]) <= 1e-2
    summed_in_bf16 = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(1500):
        summed_in_bf16 += torch.tensor(7 / V, dtype=torch.bfloat16)
    assert summed_in_bf16 / 10500 < 0.5 / V


def test_fp16_sums_beyond_its_range_are_divided_before_they_are_stored():
    hidden = torch.full((3500, D), 40.0, dtype=torch.float16)
    weight = torch.zeros(V, D, dtype=torch.float16, requires_grad=True)
    labels = torch.zeros(3500, dtype=torch.long)  # row 0 sums 3500 * 40 * (1 - 1/50) = 137200 > 65504
    (found,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), weight)
    assert relative([found[0]], [torch.full((D,), -40 * (1 - 1 / V))]) <= 1e-2


@pytest.mark.parametrize("token_weights", [False, True])
def test_autocast_casts_the_product_and_keeps_the_loss_in_fp32(path, token_weights):
    hidden, weight, labels, options = make_inputs(token_weights=token_weights)
    with torch.autocast("cpu", torch.bfloat16):
        value = linear_cross_entropy(hidden, weight, labels, **options)
        reference = linear_cross_entropy_full(hidden, weight, labels, **options)
    found = [value, *torch.autograd.grad(value, (hidden, weight))]
    wanted = [reference, *torch.autograd.grad(reference, (hidden, weight))]
    assert value.dtype == torch.float32 and found[2].dtype == torch.float32
    assert relative(found, wanted) <= 1e-2
    exact = value_and_gradients(linear_cross_entropy_full, hidden, weight, labels, options)[0]
    assert 1e-6 < (value - exact).abs() < 2e-2, "the product did run in bf16"
    mixed = linear_cross_entropy_full(hidden, weight, labels)
    with torch.autocast("cpu", torch.bfloat16):  # as after a layer norm, which autocast leaves in fp32
        assert (linear_cross_entropy(hidden.bfloat16(), weight, labels) - mixed).abs() < 2e-2


@pytest.mark.parametrize("options", [{}, {"softcap": 3.0}])
def test_compile_breaks_the_graph_and_stays_right(path, options):
    hidden, weight, labels, options = make_inputs(**options)

    def step(hidden, weight, labels):
        return linear_cross_entropy(hidden * 2, weight, labels, **options) * 3

    wanted = value_and_gradients(step, hidden, weight, labels, {})
    compiled = torch.compile(step, backend="eager")
    assert relative(value_and_gradients(compiled, hidden, weight, labels, {}), wanted) <= 1e-6


def test_ignored_rows_cannot_poison_the_loss(path):
    hidden, weight, labels, _ = make_inputs(ignored=0)
    wanted = linear_cross_entropy(hidden[1:], weight, labels[1:])
    labels[0] = -100
    with torch.no_grad():
        hidden[0] = float("nan")
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, labels), wanted)
    labels[0, 0] = 3
    assert linear_cross_entropy(hidden, weight, labels).isnan()


def test_torch_path_is_taken_where_it_covers_the_case(monkeypatch):
    if not hasattr(F, "linear_cross_entropy"):
        pytest.skip("optional package absent: torch 2.13")
    calls = []
    inner = F.linear_cross_entropy

    def spy(*args, options, **kwargs):
        calls.append(options.batch_chunk_size)
        return inner(*args, options=options, **kwargs)

    monkeypatch.setattr(F, "linear_cross_entropy", spy)
    hidden, weight, labels, _ = make_inputs()
    linear_cross_entropy(hidden, weight, labels, scale=2.0, bias=torch.zeros(V))
    assert calls == [7], "an explicit chunk: the defaults are 20 times slower on CPU"
    for options in ({"token_weights": torch.ones(labels.shape)}, {"softcap": 3.0}):
        linear_cross_entropy(hidden, weight, labels, **options)
    linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), labels)
    assert calls == [7]


def fake_liger(x, weight, labels, bias=None, reduction="mean", softcap=None, accum_dtype=None):
    """What Liger's fused loss computes and refuses to compute, in plain torch."""
    assert reduction == "sum" and accum_dtype == torch.float32
    logits = F.linear(x, weight, bias).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    value = F.cross_entropy(logits, labels, reduction="sum")
    return value if x.requires_grad else value.detach()  # Liger forms no gradients when x needs none


@pytest.mark.parametrize("frozen", [None, "hidden", "weight"])
@pytest.mark.parametrize("options, used", [({}, 1), ({"softcap": 3.0, "bias": True}, 1), ({"scale": 2.0}, 0)])
def test_liger_branch(monkeypatch, options, used, frozen):
    calls = []
    kernels = {"liger_linear_cross_entropy": lambda *a, **k: calls.append(k) or fake_liger(*a, **k)}
    monkeypatch.setattr(paths, "kernel", lambda name, device: kernels[name])
    hidden, weight, labels, options = make_inputs(**options)
    if frozen:
        {"hidden": hidden, "weight": weight}[frozen].requires_grad_(False)
    found = value_and_gradients(linear_cross_entropy, hidden, weight, labels, options)
    assert relative(found, value_and_gradients(linear_cross_entropy_full, hidden, weight, labels, options)) <= 1e-5
    assert len(calls) == used
    linear_cross_entropy_sum(hidden, weight, labels, z_weights=torch.ones(labels.shape), **options)
    linear_cross_entropy(hidden, weight, labels, torch.ones(labels.shape), **options)
    linear_cross_entropy(hidden, weight, torch.full_like(labels, -100), **options)
    assert len(calls) == used, "it knows no token weights, no z-loss and no empty batch"


class LowRankHead(nn.Module):
    """A frozen linear layer with a trained low-rank side path, like an adapted output head."""

    def __init__(self, weight, bias):
        super().__init__()
        self.base = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = bias
        g = torch.Generator().manual_seed(3)
        self.a = nn.Parameter(torch.randn(2, weight.shape[1], generator=g))
        self.b = nn.Parameter(torch.randn(weight.shape[0], 2, generator=g))
        self.calls = []

    def forward(self, x):
        self.calls.append(len(x))
        return F.linear(x, self.base, self.bias) + x @ self.a.T @ self.b.T


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("z", [False, True])
def test_head_path_equals_the_merged_weight(options, z):
    hidden, weight, labels, options = make_inputs(z_weights=z, **options)
    head = LowRankHead(weight, options.pop("bias", None))
    leaves = [hidden, head.a, head.b]
    found = head_cross_entropy_sum(head, hidden, labels, rows_per_chunk=7, **options)
    found = [found, *torch.autograd.grad(0.7 * found, leaves)]
    assert max(head.calls) == 7 and len(head.calls) > 4
    merged = head.base + head.b @ head.a
    wanted = linear_cross_entropy_sum_full(hidden, merged, labels, bias=head.bias, **options)
    assert relative(found, [wanted, *torch.autograd.grad(0.7 * wanted, leaves)]) <= 1e-5


def test_head_path_calls_as_often_as_asked_and_reaches_every_parameter():
    hidden, weight, labels, _ = make_inputs()
    head = LowRankHead(weight, None)
    wanted = head_cross_entropy_sum(head, hidden, labels, rows_per_chunk=7)
    needed = len(head.calls)
    head.calls.clear()
    torch.testing.assert_close(head_cross_entropy_sum(head, hidden, labels, rows_per_chunk=7, least_chunks=9), wanted)
    assert len(head.calls) == 9 > needed
    for tokens, targets in ((hidden, torch.full_like(labels, -100)), (hidden[:0], labels[:0])):
        value = head_cross_entropy_sum(head, tokens, targets)
        gradients = torch.autograd.grad(value, (hidden, head.a, head.b))
        assert value == 0 and all(torch.equal(g, torch.zeros_like(g)) for g in gradients)
    with torch.no_grad():
        assert not head_cross_entropy_sum(head, hidden, labels).requires_grad


ONES = torch.ones
BAD = {
    "shape of labels": (dict(labels=ONES(3, 10).long()), r"labels \(3, 10\).*hidden \(3, 11, 16\)"),
    "width of weight": (dict(weight=ONES(V, 15)), r"hidden \(3, 11, 16\).*\(V, 16\), not \(50, 15\)"),
    "partitioned weight": (dict(weight=ONES(0)), r"not \(0,\)"),
    "shape of bias": (dict(bias=ONES(49)), r"weight \(50, 16\).*bias \(50,\), not \(49,\)"),
    "label too large": (dict(labels=torch.full((3, 11), V)), "label 50 .*vocabulary of 50"),
    "label below zero": (dict(labels=torch.full((3, 11), -1)), "label -1 .*-100"),
    "float labels": (dict(labels=ONES(3, 11)), "integer.*float32"),
    "bool labels": (dict(labels=ONES(3, 11).bool()), "integer.*bool"),
    "shape of token weights": (dict(token_weights=ONES(11)), r"token_weights \(11,\).*labels \(3, 11\)"),
    "negative token weights": (dict(token_weights=-ONES(3, 11)), "at least 0"),
    "nan token weights": (dict(token_weights=ONES(3, 11) * float("nan")), "at least 0"),
    "trained token weights": (dict(token_weights=ONES(3, 11).requires_grad_()), "token_weights.*detach"),
    "softcap zero": (dict(softcap=0.0), "softcap.*not 0.0"),
    "softcap negative": (dict(softcap=-1.0), "softcap.*not -1.0"),
    "scale": (dict(scale=float("nan")), "scale.*nan"),
    "dtypes": (dict(weight=ONES(V, D).bfloat16()), "float32.*bfloat16"),
}


@pytest.mark.parametrize("changed, message", BAD.values(), ids=BAD)
def test_bad_input(changed, message):
    hidden, weight, labels, _ = make_inputs(ignored=0)
    arguments = {"weight": weight, "labels": labels} | changed
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(hidden, **arguments)


def test_bad_input_of_the_other_entries():
    hidden, weight, labels, _ = make_inputs(ignored=0)
    with pytest.raises(ValueError, match="z_weights.*labels"):
        linear_cross_entropy_sum(hidden, weight, labels, z_weights=torch.ones(11))
    with pytest.raises(ValueError, match="label 49 .*vocabulary of 20"):
        head_cross_entropy_sum(nn.Linear(D, 20), hidden, torch.full_like(labels, 49))
    weight.ds_id = 0  # what DeepSpeed writes on a parameter it may have partitioned
    weight.data = torch.empty(0)
    with pytest.raises(ValueError, match="ZeRO-3 partition, gather"):
        linear_cross_entropy(hidden, weight, labels)
