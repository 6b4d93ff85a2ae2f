"""Every family of the registry, packed against separate: transformers' own model, one sample at a time, is the slow
twin of a prepared model that takes whole rows of samples.
"""

import copy
import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from llm import families
from tests.helpers.family_models import enliven
from tests.helpers.tiny_llm import (
    difference,
    gradient_error,
    gradients,
    native_model,
    prepared_copy,
    random_ids,
    random_rows,
    samples,
    separate_logits,
    seq_idx_of,
)

FAMILIES = sorted(families())
HYBRIDS = sorted(name for name, family in families().items() if family.swaps)
ATTENDING = sorted(name for name in FAMILIES if name != "mamba2")
# Weights of `enliven`: Jamba's norms over its steps, B and C make it 1.4e-5 from float64 in transformers' own forward.
LIVELY = {"jamba": 1e-4}
ROWS = [[70, 1, 29], [1, 3, 96]]  # two rows; samples of one token, and beyond a chunk of 64


def random_weights(like: torch.Tensor) -> torch.Tensor:
    """A random functional of logits: its gradient reaches every position and every entry of the vocabulary."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_packed_equals_separate(name: str, batch: int):
    native = native_model(name)
    model = prepared_copy(native)
    rows = random_rows(batch, seed=10 * batch + FAMILIES.index(name))
    ids, seq_idx = random_ids(rows), seq_idx_of(rows)
    wanted = separate_logits(native, ids, rows)
    weights = random_weights(wanted)
    found = model(input_ids=ids, seq_idx=seq_idx).logits
    assert wanted.abs().max() > 1.5
    assert difference(found, wanted) <= 2e-5
    wanted_gradients = gradients(native, (wanted * weights).sum())
    assert gradient_error(gradients(model, (found * weights).sum()), wanted_gradients) <= 1e-4
    with torch.no_grad():
        control = model(input_ids=ids).logits
    assert difference(control, wanted) > 1e-2


def without_seq_idx(method):
    """A mixer method whose argument `seq_idx`, third (convolution) or fifth (scan), is lost."""

    def forgetful(*arguments, **options):
        place = 2 if method.__name__ == "convolve" else 5
        return method(*arguments[:place], None, *arguments[place + 1 :], **options)

    return forgetful


@pytest.mark.parametrize("part", ["convolution", "scan", "attention"])
@pytest.mark.parametrize("name", [name for name in HYBRIDS if name != "mamba2"])
def test_each_part_must_keep_samples_apart(name: str, part: str, monkeypatch):
    """Control of the test above: with one of the three parts unaware of samples it would fail."""
    import llm.mamba1_mixer
    import llm.mamba2_mixer
    import llm.packed_attention

    native = enliven(native_model(name))
    model = prepared_copy(native)
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    with torch.no_grad():
        wanted = separate_logits(native, ids, ROWS)
        assert difference(model(input_ids=ids, seq_idx=seq_idx).logits, wanted) <= LIVELY.get(name, 2e-5)
    mixer = llm.mamba1_mixer if name == "jamba" else llm.mamba2_mixer
    owner = mixer.PackedJambaMamba if name == "jamba" else mixer.PackedMamba2
    if part == "convolution":
        monkeypatch.setattr(mixer, "convolve", without_seq_idx(mixer.convolve))
    elif part == "scan":
        monkeypatch.setattr(owner, "scan", without_seq_idx(owner.scan))
    else:
        whole_rows = torch.tensor([sum(ROWS[0])] * len(ROWS))
        split = llm.packed_attention.packed_sdpa
        forgetful = lambda *inputs, **options: split(*inputs, **options | {"sample_lengths": whole_rows})  # noqa: E731
        monkeypatch.setitem(llm.packed_attention.AttentionInterface._global_mapping, "packed_sdpa", forgetful)
    with torch.no_grad():
        found = model(input_ids=ids, seq_idx=seq_idx).logits
    threshold = 1e-4 if (name, part) == ("falcon_h1", "attention") else 1e-3
    assert difference(found, wanted) > threshold


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ATTENDING)
def test_attention_implementations_agree(name: str, implementation: str):
    """transformers' own block-diagonal masks are the slow twin of attention sample by sample."""
    model = prepared_copy(enliven(native_model(name)))
    assert model.config._attn_implementation == "packed_sdpa"
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    results = []
    for used in ("packed_sdpa", implementation):
        model.config._attn_implementation = used
        logits = model(input_ids=ids, seq_idx=seq_idx).logits
        results.append((logits.detach(), gradients(model, (logits * random_weights(logits)).sum())))
    (found, found_gradients), (wanted, wanted_gradients) = results
    assert difference(found, wanted) <= LIVELY.get(name, 2e-5)
    assert gradient_error(found_gradients, wanted_gradients) <= 1e-4


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing(name: str, use_reentrant: bool):
    model = prepared_copy(enliven(native_model(name))).train()
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    if use_reentrant and model.config.to_dict().get("output_router_logits"):
        model.config.output_router_logits = False  # refused, see below
    wanted = model(input_ids=ids, seq_idx=seq_idx, labels=ids, skip_logits=True).loss
    wanted.backward()
    wanted_gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    calls = []

    def counting(*arguments, **options):
        calls.append(arguments)
        return checkpoint(*arguments, **options, use_reentrant=use_reentrant)

    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = counting
    found = model(input_ids=ids, seq_idx=seq_idx, labels=ids, skip_logits=True).loss
    found.backward()
    assert len(calls) >= model.config.num_hidden_layers, "every block is checkpointed"
    assert difference(found, wanted) <= 1e-6
    found_gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert gradient_error(found_gradients, wanted_gradients) <= 1e-5


@pytest.mark.parametrize("name", ["granitemoehybrid", "jamba"])
def test_reentrant_checkpointing_would_lose_the_router_loss(name: str):
    model = prepared_copy(native_model(name)).train()
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="reentrant gradient checkpointing and a router loss"):
        model(input_ids=ids, seq_idx=seq_idx, labels=ids, skip_logits=True)
    with torch.no_grad():  # an evaluation needs no gradient
        assert model(input_ids=ids, seq_idx=seq_idx, labels=ids, skip_logits=True).loss.isfinite()


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_behind_the_samples(name: str):
    """Zeros of attention_mask are a sample of their own, whatever seq_idx says there."""
    native = enliven(native_model(name))
    model = prepared_copy(native)
    rows = [[70, 1, 20, 9], [40, 37, 23]]  # the last of each row is padding
    ids, seq_idx = random_ids(rows), seq_idx_of(rows)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((9, 23)):
        mask[row, -padding:] = 0
        seq_idx[row, -padding:] = seq_idx[row, -padding - 1]
    logits = model(input_ids=ids, seq_idx=seq_idx, attention_mask=mask).logits
    real = mask.bool()
    assert difference(logits[real], separate_logits(native, ids, rows)[real]) <= LIVELY.get(name, 2e-5)
    other = ids.masked_fill(~real, 7)
    again = model(input_ids=other, seq_idx=seq_idx, attention_mask=mask).logits
    assert torch.equal(again[real], logits[real])


def native_parts(native, ids: torch.Tensor, labels: torch.Tensor, rows: list[list[int]]):
    """From transformers' model on each sample alone: (sum of cross entropies, labelled tokens, z-loss, router loss)."""
    family = families()[native.config.model_type]
    total, count, squares, routers = 0.0, 0, [], []
    options = family.base_options(native.config)
    for sample, label in zip(samples(ids, rows), samples(labels, rows)):
        outputs = native(input_ids=sample, use_cache=False, **options)
        logits = outputs.logits.float()
        found = torch.nn.functional.cross_entropy(logits[0, :-1], label[0, 1:], reduction="sum", ignore_index=-100)
        total, count = total + found, count + (label[0, 1:] != -100).sum()
        squares.append(logits[0].logsumexp(-1).square())
        routers.append(outputs.get("router_logits"))
    z_loss = family.z_loss(native.config) * torch.cat(squares).mean()
    router_loss = 0.0
    if routers[0] is not None:
        joined = {"router_logits": tuple(torch.cat(layer) for layer in zip(*routers))}
        router_loss = family.auxiliary_loss(native, joined, None)
    return total, count, z_loss, router_loss


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_is_the_token_weighted_mean_of_separate_losses(name: str):
    """And the extras of the family (z-loss, router loss) are those over all positions of the batch; of a batch that is
    a part of a step they count by its share of the tokens."""
    native = enliven(native_model(name))
    model = prepared_copy(native)
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.3, -100)
    total, count, z_loss, router_loss = native_parts(native, ids, labels, ROWS)
    wanted = total / count + z_loss + router_loss
    wanted_gradients = gradients(native, wanted)
    extras = bool(families()[name].loss_extras) and name != "falcon_h1"
    assert bool(z_loss + router_loss > 1e-3) == extras
    for skip_logits in (True, False):
        outputs = model(input_ids=ids, seq_idx=seq_idx, labels=labels, skip_logits=skip_logits)
        assert (outputs.logits is None) == skip_logits
        assert difference(outputs.loss, wanted) <= 1e-5
        assert gradient_error(gradients(model, outputs.loss), wanted_gradients) <= 1e-4
    whole = 2 * count  # labels of a step of which this batch is one half
    half = model(input_ids=ids, seq_idx=seq_idx, labels=labels, num_items_in_batch=whole).loss
    assert difference(half, (total / count + z_loss + router_loss) / 2) <= 1e-5


@pytest.mark.parametrize("name", ["llama", "nemotron_h", "falcon_h1"])
def test_weighted_loss(name: str):
    """Weights of first tokens do not count either."""
    native = enliven(native_model(name))
    model = prepared_copy(native)
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(4))
    total, count = 0.0, 0.0
    for sample, weight in zip(samples(ids, ROWS), samples(weights, ROWS)):
        logits = native(input_ids=sample, use_cache=False).logits
        entropy = torch.nn.functional.cross_entropy(logits[0, :-1], sample[0, 1:], reduction="none")
        total, count = total + (entropy * weight[0, 1:]).sum(), count + weight[0, 1:].sum()
    found = model(input_ids=ids, seq_idx=seq_idx, labels=ids, token_weights=weights, skip_logits=True).loss
    assert difference(found, total / count) <= 1e-5
    assert gradient_error(gradients(model, found), gradients(native, total / count)) <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_first_tokens_are_no_targets(name: str):
    model = prepared_copy(enliven(native_model(name)))
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    with torch.no_grad():
        loss = model(input_ids=ids, seq_idx=seq_idx, labels=ids).loss
        changed = ids.clone()
        changed[0, [0, 70, 71]] = 5  # first tokens of the three samples of row 0
        assert torch.equal(model(input_ids=ids, seq_idx=seq_idx, labels=changed).loss, loss)
        changed[0, 72] = (ids[0, 72] + 1) % 90
        assert not torch.equal(model(input_ids=ids, seq_idx=seq_idx, labels=changed).loss, loss)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_stay_inside_a_sample(name: str):
    """Exactly zero, forwards and backwards: the loss of sample 2 does not touch the embeddings of samples 1 and 3."""
    model = prepared_copy(enliven(native_model(name)))
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embeds, seq_idx=seq_idx).logits
    lonely = model(inputs_embeds=embeds).logits
    second = torch.zeros(ids.shape)
    second[0, 70], second[1, 1:4] = 1, 1
    for outputs, isolated in ((logits, True), (lonely, False)):
        weights = random_weights(outputs) * second[..., None]
        (grad,) = torch.autograd.grad((outputs * weights).sum(), embeds)
        touched = grad.abs().amax(-1)
        assert touched[second.bool()].min() > 0
        assert (touched[~second.bool()].max() == 0) == isolated


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_stays_close(name: str):
    """The packed row in bfloat16 is as far from float32 as the samples alone are."""
    native = enliven(native_model(name))
    half = prepared_copy(copy.deepcopy(native).to(torch.bfloat16))
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    with torch.no_grad():
        wanted = separate_logits(native, ids, ROWS)
        found = half(input_ids=ids, seq_idx=seq_idx).logits
        alone = separate_logits(half, ids, ROWS)
        control = half(input_ids=ids).logits
    spread = lambda x: ((x.float() - wanted).norm() / wanted.norm()).item()  # noqa: E731
    assert found.dtype == torch.bfloat16
    assert spread(found) <= max(2 * spread(alone), 0.02)
    assert spread(control) > 0.2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sample_alone_is_a_row_without_seq_idx(name: str):
    model = prepared_copy(enliven(native_model(name)))
    ids = random_ids([[130]])
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        found = model(input_ids=ids, seq_idx=torch.full_like(ids, 3)).logits
    assert difference(found, wanted) <= LIVELY.get(name, 2e-5)
    assert math.isfinite(wanted.abs().max())


def test_compiled_for_any_samples():
    """torch.compile gives the same, and a row of other samples is no reason to compile again."""
    from torch._dynamo.utils import counters

    model = prepared_copy(native_model("nemotron_h"))
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(model, backend="aot_eager")
    graphs = []
    for row in ([40, 1, 29, 30], [90, 10], [7, 63, 30], [1, 33, 33, 30, 3]):
        ids, seq_idx = random_ids([row]), seq_idx_of([row])
        losses = [m(input_ids=ids, seq_idx=seq_idx, labels=ids, skip_logits=True).loss for m in (compiled, model)]
        assert difference(*losses) <= 1e-6
        assert gradient_error(gradients(model, losses[0]), gradients(model, losses[1])) <= 1e-5
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 1
    assert graphs[-1] == graphs[1], "the number of samples becomes dynamic once"
    torch.compiler.reset()
