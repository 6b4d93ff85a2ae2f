"""Teachers of self-distillation: the student without its adapters, a second model, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from tests.helpers.small_training import batches_of, mixed_samples, weights_of
from tests.helpers.stage_runs import save_small_vlm
from training.adapters import attach_adapters, finish_adapters
from training.distillation.teacher import SecondModel, WithoutAdapters, is_own_teacher, open_teacher
from training.loading import load_model
from training.recipe import RecipeError
from training.recipe.loading import load_recipe
from training.trainable import make_trainable

ARGS = SimpleNamespace(bf16=False, deepspeed=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    save_small_vlm(folder / "start")
    save_small_vlm(folder / "other", seed=1)
    return folder


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


def test_autocast_keeps_no_weight_of_the_student_for_the_teacher(tmp_path):
    """Its cache knows parameters by what holds them, and a tied head that trains holds other values for the teacher."""
    save_small_vlm(tmp_path / "tied", tie_word_embeddings=True)
    model, processor, recipe = student(tmp_path, "adapter.rank=4", "modules.new_embeddings.freeze=false", model="tied")
    own, rows = open_teacher(model, processor, recipe, ARGS), torch.randn(5, 32)
    assert model.get_output_embeddings().weight in own.first
    with torch.autocast("cpu", torch.bfloat16):
        before = own.logits(rows)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2)
    with torch.autocast("cpu", torch.bfloat16):
        first, teacher, again = model.language_model.logits_of(rows), own.logits(rows), own.logits(rows)
        second = model.language_model.logits_of(rows)
        assert torch.is_autocast_cache_enabled()
    assert torch.equal(teacher, before) and torch.equal(again, before)
    assert torch.equal(first, 2 * before) and torch.equal(second, first) and second.requires_grad


def test_a_second_model_is_loaded_where_the_student_is_not_the_teacher(folder):
    for words in ((), ("adapter.rank=4", f"distill.teacher={folder / 'other'}")):
        model, processor, recipe = student(folder, *words)
        teacher = open_teacher(model, processor, recipe, ARGS)
        assert isinstance(teacher, SecondModel) and teacher.model is not model
        assert not any(p.requires_grad for p in teacher.model.parameters())


def test_who_is_its_own_teacher(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    for words, own in (
        (("model=a",), False),
        (("model=a", "adapter.rank=4"), True),
        (("model=a", "adapter.rank=4", "distill.teacher=a"), True),
        (("model=a", "adapter.rank=4", "distill.teacher=b"), False),
        ((f"model={tmp_path}", "adapter.rank=4"), False),  # an adapter that trains on
    ):
        assert is_own_teacher(load_recipe(None, list(words))) is own


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
