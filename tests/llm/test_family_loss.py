"""The loss that never makes the full logits is the family's own: `ForCausalLM(labels=...)` of transformers with every
multiplier different from 1, values and gradients; plus what transformers does not have, checked against plain formulas.
"""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn

import llm.causal_lm
from llm import families, prepare_language_model
from tests.helpers.family_models import FAMILIES, native_and_prepared, tokens
from tests.helpers.tiny_llm import difference, gradient_error, gradients

NEUTRAL = {
    "logit_scale": lambda config: 1.0,
    "embedding_scale": lambda config: 1.0,
    "softcap": lambda config: None,
    "z_loss": lambda config: 0.0,
    "auxiliary_loss": None,
}
EXTRAS = {  # what each family does to a plain cross entropy, multipliers of embeddings included
    "falcon_h1": {"logit_scale", "embedding_scale"},
    "granitemoehybrid": {"logit_scale", "auxiliary_loss"},
    "bamba": {"z_loss"},
    "jamba": {"auxiliary_loss"},
}


def batch() -> dict[str, torch.Tensor]:
    """(3, 70) ids, labels with holes, weights; row 0 padded on the left, row 1 on the right."""
    ids = tokens(3, 70)
    mask = torch.ones_like(ids)
    mask[0, :9] = mask[1, 50:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :20] = labels[2, 40:60] = -100
    weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(3)) + 0.1
    return {"ids": ids, "mask": mask, "labels": labels, "weights": weights}


def own_loss(model, **inputs) -> torch.Tensor:
    """transformers' own `forward(labels=...)`, run on the prepared model: same scan, other loss."""
    return type(model).prepared_from.forward(model, **inputs).loss


def assert_loss(found: torch.Tensor, wanted: torch.Tensor, model, native) -> None:
    assert abs(found / wanted - 1) <= 1e-5
    assert gradient_error(gradients(model, found), gradients(native, wanted)) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_loss_that_is_cross_entropy_alone_says_so(name: str):
    _, model = native_and_prepared(name)
    data = batch()
    outputs = model(input_ids=data["ids"], labels=data["labels"], skip_logits=True, return_token_losses=True)
    alone = outputs.token_losses.sum() / (data["labels"][:, 1:] != -100).sum()
    assert model.adds_nothing_to_the_loss == bool(abs(outputs.loss / alone - 1) <= 1e-5)
    model.config.router_aux_loss_coef, model.config.output_router_logits = 0.1, False  # never asked for, never added
    assert model.adds_nothing_to_the_loss or name == "bamba"


@pytest.mark.parametrize("counted", [None, 321, torch.tensor(77)], ids=["mean", "int", "tensor"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_equals_transformers(name: str, padded: bool, counted):
    native, model = native_and_prepared(name)
    data = batch()
    inputs = {"input_ids": data["ids"], "labels": data["labels"]}
    inputs |= {"attention_mask": data["mask"]} if padded else {}
    inputs |= {} if counted is None else {"num_items_in_batch": counted}
    wanted = native(**inputs).loss
    if counted is not None and name in ("bamba", "jamba", "granitemoehybrid"):
        # one batch of several: transformers adds the whole extra to each, here each brings its share of the tokens
        share = (data["labels"][:, 1:] != -100).sum() / counted
        wanted = wanted - (1 - share) * extra_loss(name, native, native(**inputs | {"labels": None}))
        assert_loss(model(**inputs, skip_logits=True).loss, wanted, model, native)
        return
    wanted_gradients = gradients(native, wanted)

    outputs = model(**inputs, skip_logits=True)
    assert outputs.logits is None
    assert abs(outputs.loss / wanted - 1) <= 1e-5
    found = gradients(model, outputs.loss)
    assert gradient_error(found, wanted_gradients) <= 1e-4  # two scans, as packed against separate
    assert gradient_error(found, gradients(model, own_loss(model, **inputs))) <= 1e-5

    with_logits = model(**inputs)
    assert abs(with_logits.loss / wanted - 1) <= 1e-5
    assert difference(with_logits.logits, native(**inputs).logits) <= 2e-5
    short = model(**inputs, logits_to_keep=2)  # transformers would compare all labels with these two
    assert short.logits.shape[1] == 2 and abs(short.loss / wanted - 1) <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_from_embeddings(name: str):
    """A vision-language model has no ids: the same loss, and gradients of the embeddings."""
    native, model = native_and_prepared(name)
    data = batch()
    inputs = {"labels": data["labels"], "attention_mask": data["mask"]}
    embeds = model.get_input_embeddings()(data["ids"]).detach().requires_grad_()
    loss = model(inputs_embeds=embeds, **inputs, skip_logits=True).loss
    looked_up = []
    native.get_input_embeddings().register_forward_hook(lambda table, ids, rows: looked_up.append(rows))
    wanted = native(input_ids=data["ids"], **inputs).loss
    assert abs(loss / wanted - 1) <= 1e-5
    (gradient,), (wanted_gradient,) = torch.autograd.grad(loss, embeds), torch.autograd.grad(wanted, looked_up)
    assert (gradient - wanted_gradient).norm() <= 1e-4 * wanted_gradient.norm()


def extras_of(name: str) -> set[str]:
    """The fields of a record that are not neutral for the family's tiny configuration."""
    record = families()[name]
    config = record.tiny()

    def value(field: str, function):
        return function is not None if field == "auxiliary_loss" else function(config)

    return {name for name, neutral in NEUTRAL.items() if value(name, getattr(record, name)) != value(name, neutral)}


def test_families_declare_their_extras():
    assert {name: extras_of(name) for name in FAMILIES if extras_of(name)} == EXTRAS


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in EXTRAS for field in sorted(EXTRAS[name])])
def test_every_extra_matters(name: str, field: str, monkeypatch):
    """Control: with the record's value replaced by a neutral one the loss is another."""
    native, model = native_and_prepared(name)
    data = batch()
    inputs = {"labels": data["labels"], "skip_logits": True}
    embeds = model.get_input_embeddings()(data["ids"])
    right = model(inputs_embeds=embeds, **inputs).loss
    record = dataclasses.replace(families()[name], **{field: NEUTRAL[field]})
    monkeypatch.setattr(llm.causal_lm, "family_of", lambda model: record)
    assert abs(model(inputs_embeds=embeds, **inputs).loss / right - 1) > 1e-4  # ten times what is allowed above


def extra_loss(name: str, native, outputs) -> torch.Tensor:
    """What the family adds to the cross entropy, by the book."""
    config = native.config
    if name == "bamba":
        return config.z_loss_coefficient * torch.logsumexp(outputs.logits, dim=-1).square().mean()
    if name in ("jamba", "granitemoehybrid"):
        return config.router_aux_loss_coef * outputs.aux_loss
    return torch.zeros(())


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B, L - 1): negative log-likelihood of each next token, 0 where nothing is predicted."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")


@pytest.mark.parametrize("name", FAMILIES)
def test_token_weights_are_a_weighted_mean(name: str):
    native, model = native_and_prepared(name)
    data = batch()
    inputs = {"input_ids": data["ids"], "attention_mask": data["mask"]}
    outputs = native(**inputs)
    losses, used = token_losses(outputs.logits, data["labels"]), data["labels"][:, 1:] != -100
    weights = data["weights"][:, 1:] * used
    extra = extra_loss(name, native, outputs)
    wanted = (weights * losses).sum() / weights.sum() + extra

    weighted = {**inputs, "labels": data["labels"], "skip_logits": True}
    found = model(**weighted, token_weights=data["weights"])
    assert found.logits is None and abs(found.loss / wanted - 1) <= 1e-5
    assert gradient_error(gradients(model, found.loss), gradients(native, wanted)) <= 1e-4
    with torch.no_grad():
        plain = model(**weighted).loss
        assert abs(plain / found.loss - 1) > 1e-4, "control: the weights matter"
        same = model(**weighted, token_weights=torch.full_like(data["weights"], 0.5)).loss
        assert abs(same / plain - 1) <= 1e-6
        holes = data["weights"].masked_fill(data["labels"] == -100, math.nan)
        assert model(**weighted, token_weights=holes).loss == found.loss, "ignored positions have no weight to read"
        divided = model(**weighted, token_weights=data["weights"], num_items_in_batch=50).loss
        share = weights.sum() / 50  # of several batches that make a step, each brings its share of the extra loss
        assert abs(divided / ((weights * losses).sum() / 50 + share * extra) - 1) <= 1e-5
        shown = model(**weighted | {"skip_logits": False}, token_weights=data["weights"])
        assert abs(shown.loss / wanted - 1) <= 1e-5 and difference(shown.logits, outputs.logits) <= 2e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_z_loss_and_token_losses(name: str):
    """z-loss counts where labels do, by their weights; each token's own loss comes at the place of its label."""
    native, model = native_and_prepared(name)
    data = batch()
    inputs = {"input_ids": data["ids"], "attention_mask": data["mask"]}
    outputs = native(**inputs)
    losses, used = token_losses(outputs.logits, data["labels"]), data["labels"][:, 1:] != -100
    weights = data["weights"][:, 1:] * used
    z = outputs.logits[:, :-1].logsumexp(-1).square()
    wanted = (weights * (losses + 0.1 * z)).sum() / weights.sum() + extra_loss(name, native, outputs)
    inputs |= {"labels": data["labels"], "skip_logits": True, "return_token_losses": True}
    found = model(**inputs, token_weights=data["weights"], z_loss=0.1)
    assert abs(found.loss / wanted - 1) <= 1e-5
    assert gradient_error(gradients(model, found.loss), gradients(native, wanted)) <= 1e-4
    for each in (found.token_losses, model(**inputs).token_losses):
        assert not each.requires_grad and each[:, 0].eq(0).all()
        torch.testing.assert_close(each[:, 1:], losses.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("counted", [None, torch.tensor(77)], ids=["mean", "tensor"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_row_loss_counts_as_the_cross_entropy_does(packed: bool, counted):
    """The same rows, targets, weights and divisor: cross entropy itself, given as a row_loss, doubles the loss."""
    _, model = native_and_prepared("falcon_h1")
    data = batch()
    shape = {"seq_idx": torch.arange(70).expand(3, 70) // 30} if packed else {"attention_mask": data["mask"]}
    inputs = {"input_ids": data["ids"], "labels": data["labels"], "token_weights": data["weights"], **shape}
    inputs |= {"skip_logits": True, "num_items_in_batch": counted}

    def row_loss(hidden, targets, weights, language_model):
        rows = targets != -100
        nll = F.cross_entropy(language_model.logits_of(hidden[rows]), targets[rows], reduction="none")
        return (weights[rows] * nll).sum()

    once, twice = model(**inputs).loss, model(**inputs, row_loss=row_loss).loss
    assert_loss(twice, 2 * once, model, model)


@pytest.mark.parametrize("counted", [None, 0, torch.tensor(0)], ids=["mean", "int", "tensor"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_to_learn_is_zero_not_nan(name: str, weighted: bool, counted):
    """Only the family's extra loss is left; every gradient is there and finite."""
    native, model = native_and_prepared(name)
    ids = tokens(2, 20)
    labels = torch.full_like(ids, -100)
    labels[:, 0] = ids[:, 0]  # nothing predicts the first token
    options = {"token_weights": torch.ones(ids.shape)} if weighted else {}
    loss = model(input_ids=ids, labels=labels, skip_logits=True, num_items_in_batch=counted, **options).loss
    assert abs(loss - extra_loss(name, native, native(input_ids=ids))) <= 1e-6
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.get_output_embeddings().weight.grad is not None
    assert native(input_ids=ids, labels=labels).loss.isnan(), "control: transformers"


class ScaledHead(nn.Linear):
    """A head whose forward is more than its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1.5 * super().forward(x)


@pytest.mark.parametrize("head", ["lora", "subclass", "bias"])
@pytest.mark.parametrize("name", FAMILIES)
def test_other_heads(name: str, head: str):
    """A head with an adapter, one that computes something else, one with a bias: as the logits of transformers."""
    native, _ = native_and_prepared(name)
    weight = native.get_output_embeddings().weight
    if head == "lora":
        adapter = LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
        native = get_peft_model(native, adapter).base_model.model
    else:
        other = ScaledHead(64, 96, bias=False) if head == "subclass" else nn.Linear(64, 96)
        other.weight = weight
        if head == "bias":
            nn.init.normal_(other.bias)
        native.set_output_embeddings(other)
    model = prepare_language_model(copy.deepcopy(native))
    data = batch()
    inputs = {"input_ids": data["ids"], "labels": data["labels"]}
    wanted, found = native(**inputs).loss, model(**inputs, skip_logits=True).loss
    assert abs(found / wanted - 1) <= 1e-5
    assert abs(found / native_and_prepared(name)[0](**inputs).loss - 1) > 1e-3, "control: the head is another"
    assert gradient_error(some_gradients(model, found), some_gradients(native, wanted)) <= 1e-4


def some_gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of the parameters that train (an adapter freezes the others)."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert named
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: grad for name, grad in zip(named, found) if grad is not None}


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_loss_stays_near_fp32(name: str):
    """Also where the residual stream stays in fp32, as Mamba-2's does."""
    native, model = native_and_prepared(name)
    model = model.to(torch.bfloat16)
    data = batch()
    inputs = {"input_ids": data["ids"], "labels": data["labels"]}
    wanted = native(**inputs).loss
    for options in ({"skip_logits": True}, {}, {"token_weights": torch.ones(data["ids"].shape), "skip_logits": True}):
        loss = model(**inputs, **options).loss
        assert abs(loss / wanted - 1) <= 0.02
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", FAMILIES)
def test_arguments_of_transformers_keep_their_meaning(name: str):
    _, model = native_and_prepared(name)
    inputs = {"input_ids": tokens(2, 10), "labels": tokens(2, 10)}
    wanted = model(**inputs)
    for skip in (False, True):
        values = model(**inputs, skip_logits=skip, return_dict=False)
        assert isinstance(values, tuple) and abs(values[0] / wanted.loss - 1) <= 1e-5
        hidden = model(**inputs, skip_logits=skip, output_hidden_states=True).hidden_states
        assert len(hidden) == model.config.num_hidden_layers + 1


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("name", ["jamba", "granitemoehybrid"])
def test_router_loss_is_asked_for_as_in_transformers(name: str, configured: bool, asked: bool):
    config = families()[name].tiny()
    config.output_router_logits = configured
    native, model = native_and_prepared(name, config)
    inputs = {"input_ids": tokens(2, 30), "labels": tokens(2, 30)}
    with torch.no_grad():
        for options in ({}, {"output_router_logits": asked}):
            wanted = native(**inputs, **options).loss
            assert abs(model(**inputs, **options, skip_logits=True).loss / wanted - 1) <= 1e-5
        without = native(**inputs, output_router_logits=False).loss
    assert (abs(wanted / without - 1) > 1e-3) == asked, "control: the router loss is there or not"


def test_weights_need_labels_of_their_shape():
    _, model = native_and_prepared("llama")
    ids = tokens(2, 10)
    with pytest.raises(ValueError, match=r"token_weights \(2, 9\) and labels \(2, 10\)"):
        model(input_ids=ids, labels=ids, token_weights=torch.ones(2, 9))
    with pytest.raises(ValueError, match="token_weights .* and labels None"):
        model(input_ids=ids, token_weights=torch.ones(2, 10))
    with pytest.raises(ValueError, match="labels"):
        model(input_ids=ids, labels=ids[:, :9], skip_logits=True)
