"""Self-distillation in a stage: what the divergence counts by, figures, resume."""

import json
from dataclasses import replace

import pytest
import torch

from llm.prepare import prepare_language_model
from tests.helpers.small_training import ALONE, batches_of, mixed_samples, small_trainer
from tests.helpers.stage_runs import losses, mixed_corpus, save_small_vlm, small_vlm
from training.distillation.session import Distillation
from training.distillation.teacher import SecondModel
from training.pipeline.marks import recipe_hash
from training.recipe import Distill
from training.recipe.loading import load_recipe, to_dict
from training.stage import train_stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distillation")
    save_small_vlm(folder / "start")
    mixed_corpus(folder / "data", n=8)
    return folder


def step(tmp_path, size: int, *words: str, packed: int = 0, weight: float = 30.0, **settings):
    """(logged loss, gradients, figures, trainer) of the first step over eight samples; the teacher is another model."""
    built, (teacher, _) = small_vlm(), small_vlm(seed=1)
    kept: dict[str, torch.Tensor] = {}
    batches = batches_of(built[1], mixed_samples(built[1]), size, packed)
    words = (f"gradient_accumulation_steps={len(batches)}", "max_steps=1", "max_grad_norm=0", *words)
    trainer = small_trainer(tmp_path, batches, *words, built=built)
    for model in (built[0], teacher):
        prepare_language_model(model.language_model)
    distill = Distill(weight=weight, temperature=1.5, **settings)
    trainer.distillation = Distillation(distill, SecondModel(teacher)) if weight else None
    for name, parameter in built[0].named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: kept.__setitem__(name, p.grad.clone()))
    trainer.train()
    figures = trainer.distillation.read(torch.device("cpu")) if weight else {}
    return trainer.state.log_history[0]["loss"], kept, figures, trainer


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


def run(folder, out: str, *words: str):
    train_stage(load_recipe(None, [
        f"model={folder / 'start'}", f"output_dir={folder / out}", f"data.sources=[{{path: {folder / 'data'}}}]",
        "max_steps=4", "log_steps=1", "per_device_batch_size=4", "watch.report_to=[]", "data.max_length=256",
        "learning_rate=1e-2", *words,
    ]), ALONE)  # fmt: skip
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
