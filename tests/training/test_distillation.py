"""Self-distillation: the divergence against its definition, what it counts by, its teachers, whole stages."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.helpers.small_training import batches_of, mixed_samples, small_trainer, weights_of
from tests.helpers.stage_runs import losses, mixed_corpus, save_small_vlm, small_vlm
from training.adapters import attach_adapters, finish_adapters
from training.distillation.divergence import ROWS, head_divergence, head_divergence_full
from training.distillation.session import Distillation
from training.distillation.targets import target_maker, target_names
from training.distillation.teacher import SecondModel, WithoutAdapters, open_teacher
from training.environment import Machine
from training.loading import load_model
from training.pipeline.marks import recipe_hash
from training.recipe import Distill, RecipeError
from training.recipe.loading import load_recipe, to_dict
from training.stage import train_stage
from training.trainable import make_trainable

MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
ARGS = SimpleNamespace(bf16=False, deepspeed=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distillation")
    save_small_vlm(folder / "start")
    save_small_vlm(folder / "other", seed=1)
    mixed_corpus(folder / "data", n=8)
    return folder


# ---- targets -------------------------------------------------------------------------------------------------------


def test_targets_are_distributions_of_the_teacher():
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 7), torch.randint(7, (50,))
    assert target_names() == ("agreed", "self", "swapped")
    for name in target_names():
        found, asked = target_maker(name)(logits, labels, 2.0)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(50))
        torch.testing.assert_close(found.exp().sort(-1).values, (logits / 2).softmax(-1).sort(-1).values)
        assert asked is None or torch.equal(asked, logits.argmax(-1) == labels)
    swapped, _ = target_maker("swapped")(logits, labels, 2.0)
    assert torch.equal(swapped.argmax(-1), labels)
    right = logits.argmax(-1) == labels
    assert 0 < right.sum() < 50 and torch.allclose(swapped[right], (logits[right] / 2).log_softmax(-1))


# ---- divergence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("number", [0, 5, ROWS, 2 * ROWS + 3])
def test_chunks_are_the_definition(name, number):
    torch.manual_seed(0)
    student, teacher = nn.Linear(6, 11).double(), nn.Linear(4, 11).double()
    theirs, labels, weights = torch.randn(number, 4).double(), torch.randint(11, (number,)), torch.rand(number)
    for part in (None, weights):
        given = []
        for function in (head_divergence, head_divergence_full):
            rows = torch.linspace(-1, 1, number * 6).double().view(number, 6).requires_grad_()
            student.zero_grad()
            found = function(student, teacher, rows, theirs, labels, part, target_maker(name), 1.7)
            total = found if function is head_divergence_full else found.total
            total.backward()
            given.append((total.detach(), rows.grad, student.weight.grad.clone()))
        for one, other in zip(*given, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, check_dtype=False)
    assert teacher.weight.grad is None
    assert number < ROWS or total > 0


def test_more_chunks_than_rows_change_nothing_but_the_calls():
    calls, student = [], nn.Linear(6, 11)
    student.register_forward_hook(lambda *args: calls.append(1))
    rows = torch.randn(3, 6, requires_grad=True)
    options = (nn.Linear(6, 11), rows, rows.detach(), torch.tensor([1, 2, 3]), None, target_maker("self"), 1.0)
    once = head_divergence(student, *options)
    assert len(calls) == 1
    often = head_divergence(student, *options, least_chunks=3)
    assert len(calls) == 4 and torch.equal(once.total, often.total)
    often.total.backward()
    assert len(calls) == 7


# ---- what it counts by ---------------------------------------------------------------------------------------------


def step(tmp_path, size: int, *words: str, packed: int = 0, weight: float = 30.0, **settings):
    """(logged loss, gradients, figures) of the first step over eight samples; the teacher is another model."""
    built, (teacher, _) = small_vlm(), small_vlm(seed=1)
    kept: dict[str, torch.Tensor] = {}
    batches = batches_of(built[1], mixed_samples(built[1]), size, packed)
    words = (f"gradient_accumulation_steps={len(batches)}", "max_steps=1", "max_grad_norm=0", *words)
    trainer = small_trainer(tmp_path, batches, *words, built=built)
    for model in (built[0], teacher):
        model.language_model = prepared(model.language_model)
    distill = Distill(weight=weight, temperature=1.5, **settings)
    trainer.distillation = Distillation(distill, SecondModel(teacher)) if weight else None
    for name, parameter in built[0].named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: kept.__setitem__(name, p.grad.clone()))
    trainer.train()
    figures = trainer.distillation.read(torch.device("cpu")) if weight else {}
    return trainer.state.log_history[0]["loss"], kept, figures, trainer


def prepared(language_model):
    from llm.prepare import prepare_language_model

    return prepare_language_model(language_model)


@pytest.mark.parametrize("average", ["token", "sample"])
def test_micro_batches_and_packing_change_neither_loss_nor_gradient(tmp_path, average):
    word = f"loss_average={average}"
    loss, gradients, figures, _ = step(tmp_path, 8, word)
    plain, without, _, _ = step(tmp_path, 8, word, weight=0.0)
    assert loss > plain + 0.1 and figures["distill_kl"] > 0 and figures["distill_share"] == 1
    assert any((gradients[name] - one).abs().max() > 1e-3 for name, one in without.items())
    for size, packed in ((4, 0), (1, 0), (4, 2)):
        other, parts, found, _ = step(tmp_path, size, word, packed=packed)
        assert other == pytest.approx(loss, abs=2e-4) and found == pytest.approx(figures, abs=1e-4)
        for name, gradient in gradients.items():
            torch.testing.assert_close(parts[name], gradient, atol=2e-5, rtol=1e-3, msg=name)


def test_the_loss_is_cross_entropy_and_weighted_divergence_of_the_asked_samples(tmp_path):
    plain = step(tmp_path, 8, weight=0.0)[0]
    for options in ({}, {"sources": ["texts"]}, {"targets": "agreed"}, {"targets": "swapped"}):
        loss, _, figures, trainer = step(tmp_path, 8, **options)
        extra = 30 * 1.5**2 * figures["distill_kl"] * figures["distill_share"]
        assert loss == pytest.approx(plain + extra, abs=2e-4)
        assert (
            figures["distill_share"] == 1 if options in ({}, {"targets": "swapped"}) else figures["distill_share"] < 1
        )
        assert trainer.source_losses.read().keys() == {"pictures", "texts"}


def test_sources_that_never_come_are_told_of(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="training"):
        _, _, figures, _ = step(tmp_path, 8, sources=["textes"])
    assert figures == {"distill_kl": 0, "distill_share": 0}
    assert "distill.sources = ['textes']" in caplog.text and "pictures, texts" in caplog.text


# ---- teachers ------------------------------------------------------------------------------------------------------


def student(folder, *words: str, model: str = "start"):
    recipe = load_recipe(None, [f"model={folder / model}", f"output_dir={folder / 'none'}", "distill.weight=1", *words])
    model, processor = load_model(recipe, ARGS)
    model = attach_adapters(model, recipe)
    make_trainable(model, processor, recipe)
    finish_adapters(model, processor, recipe, ARGS)
    return model, processor, recipe


def states_and_logits(teacher, batch):
    rows, labels = teacher.states({key: value for key, value in batch.items() if key != "sources"}, None)
    return rows, labels, teacher.logits(rows)


@pytest.mark.parametrize("more", ["modules.projector.freeze=true", "modules.new_embeddings.freeze=false"])
def test_the_student_without_its_adapters_is_the_teacher(folder, more):
    """Also when everything that trains has moved, and then it goes on where it was."""
    model, processor, recipe = student(folder, "adapter={rank: 4, dropout: 0.3}", "modules.vision.freeze=true", more)
    own = open_teacher(model, processor, recipe, ARGS)
    assert isinstance(own, WithoutAdapters) and bool(own.first) == ("new_embeddings" in more)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    second = SecondModel(load_model(recipe, ARGS)[0])
    batch = batches_of(processor, mixed_samples(processor), 8)[0]
    before, flags = weights_of(model), [p.requires_grad for p in model.parameters()]
    model.train()
    for one, other in zip(states_and_logits(own, batch), states_and_logits(second, batch), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert not one.requires_grad
    assert model.training and flags == [p.requires_grad for p in model.parameters()]
    assert all(torch.equal(value, before[name]) for name, value in weights_of(model).items())
    changed = model.eval()(**{key: value for key, value in batch.items() if key != "sources"})
    assert changed.loss.item() != pytest.approx(second.model(**_model_inputs(batch)).loss.item(), abs=1e-3)


def _model_inputs(batch: dict) -> dict:
    return {key: value for key, value in batch.items() if key != "sources"}


def test_a_second_model_is_loaded_where_the_student_is_not_the_teacher(folder):
    for words in ((), ("adapter.rank=4", f"distill.teacher={folder / 'other'}")):
        model, processor, recipe = student(folder, *words)
        teacher = open_teacher(model, processor, recipe, ARGS)
        assert isinstance(teacher, SecondModel) and teacher.model is not model
        assert not any(p.requires_grad for p in teacher.model.parameters())


def test_refusals(folder, tmp_path):
    save_small_vlm(tmp_path / "wide", vocab_size=400)
    model, processor, recipe = student(folder, f"distill.teacher={tmp_path / 'wide'}")
    with pytest.raises(RecipeError, match="distill.teacher = .*wide has a vocabulary of .* tokens, and the model"):
        open_teacher(model, processor, recipe, ARGS)
    recipe.distill.teacher = str(tmp_path / "none")
    with pytest.raises(RecipeError, match="distill.teacher = .*none: model = .* is not a folder"):
        open_teacher(model, processor, recipe, ARGS)
    for words, message in {
        ("distill.weight=-1",): "distill.weight = -1.0 must be",
        ("distill.temperature=0",): "distill.temperature = 0.0 must be above 0",
        ("distill.targets=other",): "distill.targets = 'other' is not one of agreed, self, swapped",
        ("distill.sources=[]",): "distill.sources is empty",
        (
            "distill={weight: 1, teacher: x}",
            "adapter={rank: 4, quantize: nf4}",
        ): "nf4 and distill.teacher",
    }.items():
        with pytest.raises(RecipeError, match=message):
            load_recipe(None, list(words))


# ---- a stage -------------------------------------------------------------------------------------------------------


def run(folder, out: str, *words: str):
    train_stage(load_recipe(None, [
        f"model={folder / 'start'}", f"output_dir={folder / out}", f"data.sources=[{{path: {folder / 'data'}}}]",
        "max_steps=4", "log_steps=1", "per_device_batch_size=4", "watch.report_to=[]", "data.max_length=256",
        "learning_rate=1e-2", *words,
    ]), MACHINE)  # fmt: skip
    return folder / out


def history(out) -> list[dict]:
    return [one for one in json.loads((out / "trainer_state.json").read_text())["log_history"] if "distill_kl" in one]


def test_a_stage_is_held_to_its_start_and_resumes(folder):
    whole = run(folder, "whole", "distill.weight=2", "save_steps=2", "optimizer=muon")
    kls = [one["distill_kl"] for one in history(whole)]
    assert len(kls) == 4 and kls[0] == pytest.approx(0, abs=1e-6) and kls[-1] > 1e-4
    assert json.loads((whole / "recipe.json").read_text())["distill"]["teacher"] == str(folder / "start")
    asked = load_recipe(None, [f"model={folder / 'start'}", "distill.weight=2"])
    noted = replace(asked, distill=replace(asked.distill, teacher=asked.model))
    assert recipe_hash(to_dict(noted)) == recipe_hash(to_dict(asked)), "the pipeline knows the stage by its recipe"
    resumed = run(folder, "resumed", "distill.weight=2", "optimizer=muon", f"resume={whole / 'checkpoint-2'}")
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-5)
    assert [one["distill_kl"] for one in history(resumed)] == pytest.approx(kls, rel=1e-3, abs=1e-6)


def test_with_adapters_own_start_and_a_second_copy_of_it_train_alike(folder):
    words = ("distill={weight: 2, temperature: 2}", "adapter={rank: 4}", "modules.new_embeddings.freeze=false")
    own = run(folder, "own", *words)
    (folder / "copy").symlink_to(folder / "start")
    copy = run(folder, "second", *words, f"distill.teacher={folder / 'copy'}")
    assert losses(own) == pytest.approx(losses(copy), rel=1e-6)
    assert history(own)[-1]["distill_kl"] > 1e-4
    assert (own / "adapter_config.json").is_file()
