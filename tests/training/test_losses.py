"""What counts alike in the loss, against loops; and that no way of laying out the same samples changes anything."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import TrainerCallback

from llm.prepare import prepare_language_model
from tests.helpers.small_training import batches_of, mixed_samples, small_trainer
from tests.helpers.stage_runs import small_vlm
from training.losses import loss_weight, sample_numbers, target_mask, token_weights
from training.source_losses import SourceLosses

Z = 1e-2


@pytest.fixture(scope="module")
def built():
    model, processor = small_vlm()
    prepare_language_model(model.language_model)
    return model, processor


@pytest.fixture(scope="module")
def samples(built):
    return mixed_samples(built[1])


def turn_weight(labels: list[int], place: int, average: str) -> float:
    """Weight of one target of a sample, by the book."""
    targets = [index for index in range(1, len(labels)) if labels[index] != -100]
    if average == "token":
        return 1.0
    if average == "sample":
        return 1 / len(targets)
    first = last = place
    while first - 1 in targets:
        first -= 1
    while last + 1 in targets:
        last += 1
    return 1 / math.sqrt(last - first + 1)


@torch.no_grad()
def slow_loss(model, processor, samples: list[dict], average: str, z_loss: float) -> tuple[float, dict[str, float]]:
    """Loss of a step and loss per source: a sample at a time, all logits, loops."""
    total, weight, sources = 0.0, 0.0, {}
    for sample in samples:
        batch = batches_of(processor, [sample], 1)[0]
        labels = batch.pop("labels")[0].tolist()
        logits = model(**{key: value for key, value in batch.items() if key not in ("sample_ids", "sources")}).logits[0]
        for place in range(1, len(labels)):
            if labels[place] == -100:
                continue
            row = logits[place - 1].double()
            nll = -F.log_softmax(row, dim=0)[labels[place]].item()
            w = turn_weight(labels, place, average)
            total += w * (nll + z_loss * row.logsumexp(0).item() ** 2)
            weight += w
            sums = sources.setdefault(sample["source"], [0.0, 0])
            sums[0], sums[1] = sums[0] + nll, sums[1] + 1
    return total / weight, {name: loss / count for name, (loss, count) in sources.items()}


class Gradients(TrainerCallback):
    """Keeps the gradients of a step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("average", ["token", "sample", "turn"])
def test_any_layout_gives_the_loss_and_gradients_of_the_slow_twin(tmp_path, built, samples, average: str):
    """One batch of eight, accumulation of uneven micro-batches, packed rows: what is logged is the twin's loss."""
    model, processor = built
    wanted, by_source = slow_loss(model, processor, samples, average, Z)
    layouts = {
        "whole": batches_of(processor, samples, 8),
        "parts": batches_of(processor, samples[:3], 3) + batches_of(processor, samples[3:], 5),
        "packed": batches_of(processor, samples[:6], 6, packed=4) + batches_of(processor, samples[6:], 2, packed=2),
    }
    gradients = {}
    for name, batches in layouts.items():
        kept = Gradients()
        words = ("max_steps=1", "max_grad_norm=0", f"gradient_accumulation_steps={len(batches)}", f"z_loss={Z}")
        trainer = small_trainer(tmp_path, batches, *words, f"loss_average={average}", callbacks=[kept],
                                built=(copy.deepcopy(model), processor))  # fmt: skip
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(wanted, rel=1e-5), name
        assert trainer.source_losses.read() == pytest.approx(by_source, rel=1e-5), name
        assert trainer.source_losses.read() == {}
        gradients[name] = kept.found
    for name in ("parts", "packed"):
        for weight, gradient in gradients["whole"].items():
            torch.testing.assert_close(gradients[name][weight], gradient, atol=2e-6, rtol=1e-3, msg=f"{name} {weight}")


@pytest.mark.parametrize(("words", "asked"), [((), [False, False, True]), (("z_loss=0.01",), [True] * 3),
                                              (("loss_average=turn",), [True] * 3)])  # fmt: skip
def test_a_batch_of_one_source_has_the_fast_loss(tmp_path, built, samples, monkeypatch, words, asked):
    """... and the same figures: token losses are asked for only where a batch's sum does not say its source's."""
    model, processor = copy.deepcopy(built[0]), built[1]
    kinds = {kind: [sample for sample in samples if sample["source"] == kind] for kind in ("pictures", "texts")}
    parts = [kinds["pictures"][:2], kinds["texts"][:2], kinds["pictures"][2:] + kinds["texts"][2:]]
    batches = [batch for part in parts for batch in batches_of(processor, part, 4)]
    _, by_source = slow_loss(model, processor, samples, "token", 0.0)
    seen, forward = [], model.language_model.forward
    monkeypatch.setattr(model.language_model, "forward",
                        lambda *a, **k: seen.append(k["return_token_losses"]) or forward(*a, **k))  # fmt: skip
    trainer = small_trainer(tmp_path, batches, "max_steps=1", "gradient_accumulation_steps=3", *words,
                            built=(model, processor))  # fmt: skip
    trainer.train()
    assert seen == asked
    assert trainer.source_losses.read() == pytest.approx(by_source, rel=1e-5)


def test_averages_differ(built, samples):
    """Control: the three averages and the z-loss are four losses."""
    found = [slow_loss(*built, samples, average, z)[0] for average, z in
             [("token", 0), ("sample", 0), ("turn", 0), ("token", Z)]]  # fmt: skip
    assert len({round(loss, 4) for loss in found}) == 4


def test_weights_and_counts_of_packed_rows(built, samples):
    processor = built[1]
    padded, packed = batches_of(processor, samples, 8)[0], batches_of(processor, samples, 8, packed=3)[0]
    for average in ("token", "sample", "turn"):
        weights = []
        for batch in (padded, packed):
            batch = dict(batch)
            batch["token_weights"] = token_weights(batch, average)
            if average == "token":
                assert batch["token_weights"] is None
            weights.append(loss_weight(batch).item())
        assert weights[0] == pytest.approx(weights[1])
        if average == "sample":
            assert weights[0] == pytest.approx(len(samples))
    numbers = sample_numbers(packed)
    targets = target_mask(packed["labels"], packed["seq_idx"])
    counts = [int(targets[numbers == index].sum()) for index in range(len(samples))]
    assert counts == [int((sample["labels"][1:] != -100).sum()) for sample in samples]


def test_the_first_token_of_a_packed_sample_is_no_target():
    batch = {"input_ids": torch.ones(1, 6), "labels": torch.arange(6)[None]}
    batch["seq_idx"] = torch.tensor([[0, 0, 0, 1, 1, 2]])
    assert target_mask(batch["labels"], batch["seq_idx"]).tolist() == [[False, True, True, False, True, False]]
    assert loss_weight(batch) == 3


def test_a_source_without_targets_has_no_loss():
    losses = SourceLosses()
    batch = {"input_ids": torch.ones(2, 3), "labels": torch.tensor([[1, 2, 3], [-100] * 3]), "sources": ["a", "b"]}
    losses.add(batch, None)
    assert losses.read() == {}
    losses.add(batch, torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]))
    assert losses.read() == {"a": 1.5}


def test_weights_follow_labels_that_pruning_moves(built, monkeypatch):
    """Rows of pruned videos are laid out anew inside the model: weights must go along."""
    import vlm.modeling_radio_vlm as modeling

    model, processor = copy.deepcopy(built[0]).eval(), built[1]
    batch = batches_of(processor, mixed_samples(processor)[1:3], 2)[0]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    order = torch.arange(inputs["input_ids"].shape[1]).flip(0).expand(2, -1)
    weights = torch.rand(inputs["labels"].shape)
    embed = model._embed
    seen = {}

    def keep(language_model, labels, inputs, count, keep, token_weights, *rest):
        seen.update(labels=labels, weights=token_weights)
        return real(language_model, labels, inputs, count, keep, token_weights, *rest)

    real = modeling.loss_and_outputs
    monkeypatch.setattr(modeling, "loss_and_outputs", keep)
    monkeypatch.setattr(model, "_embed", lambda *args: (embed(*args)[0], None, order))
    model(**inputs, token_weights=weights)
    assert torch.equal(seen["labels"], inputs["labels"].flip(1)) and torch.equal(seen["weights"], weights.flip(1))
