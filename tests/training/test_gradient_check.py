"""The check of the first step: every group learns, nothing frozen does, and a graph that is cut does not pass."""

import copy

import pytest
import torch

from tests.helpers.small_training import batches_of, mixed_samples, small_trainer
from tests.helpers.stage_runs import small_vlm
from training.gradient_check import GradientCheck, GradientError


@pytest.fixture(scope="module")
def built():
    return small_vlm()


@pytest.fixture(scope="module")
def samples(built):
    return mixed_samples(built[1])


def run(tmp_path, built, samples, *words, spoil=None, size=2, steps=1):
    model, processor = copy.deepcopy(built[0]), built[1]
    batches = batches_of(processor, samples, size)
    trainer = small_trainer(tmp_path, batches, f"max_steps={steps}", *words, built=(model, processor))
    if spoil:
        spoil(model)
    trainer.train()
    return trainer


def test_a_healthy_step_passes_with_accumulation_and_layer_decay(tmp_path, built, samples):
    trainer = run(tmp_path, built, samples, "gradient_accumulation_steps=4", "modules.vision.layer_decay=0.9")
    assert trainer.gradient_check.done


def cut_projector(model) -> None:
    """Its output leaves the graph."""
    real = model.multi_modal_projector.forward
    model.multi_modal_projector.forward = lambda *args, **kwargs: real(*args, **kwargs).detach()


def test_a_cut_graph_is_named(tmp_path, built, samples):
    """The language model's loss still falls: without the check nobody would notice."""
    with pytest.raises(GradientError) as error:
        run(tmp_path, built, samples, spoil=cut_projector)
    message = str(error.value)
    for group in ("projector/matrix", "projector/other", "vision/matrix", "vision/other"):
        assert f"{group}: trains, but no gradient reaches it" in message, group
    assert "text/" not in message


def test_a_part_that_counts_nothing_is_named(tmp_path, built, samples):
    """A gradient of exactly zero is as bad as none."""

    def mute(model):
        model.language_model.model.layers[2].register_forward_hook(lambda module, args, out: args[0] + 0 * out)

    with pytest.raises(GradientError, match="text/block02/matrix: its gradient is exactly zero"):
        run(tmp_path, built, samples, "modules.text.layer_decay=0.9", spoil=mute)


def test_a_frozen_weight_with_a_gradient_is_named(tmp_path, built, samples):
    """... as when a library switches requires_grad back on behind the groups' back."""

    def thaw(model):
        model.vision_model.requires_grad_(True)

    with pytest.raises(GradientError, match=r"vision: \d+ frozen tensors .* in no optimizer group"):
        run(tmp_path, built, samples, "modules.vision.freeze=true", spoil=thaw)


def test_a_gradient_that_is_not_finite_is_named(built):
    model = copy.deepcopy(built[0])
    groups = [{"name": "vision/matrix", "params": list(model.vision_model.parameters())}]
    model.multi_modal_projector.requires_grad_(False)
    model.language_model.requires_grad_(False)
    for parameter in model.vision_model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    with pytest.raises(GradientError, match="vision/matrix: its gradient is not finite"):
        GradientCheck(model, groups).check(True, True, torch.device("cpu"))


def test_a_step_without_pictures_leaves_the_vision_side_for_later(tmp_path, built, samples):
    """A healthy run passes, and a cut one is found at its first step with a picture."""
    texts = [sample for sample in samples if sample["source"] == "texts"]
    pictures = [sample for sample in samples if sample["source"] == "pictures"]
    first = run(tmp_path, built, texts, size=4)
    assert first.gradient_check.pending == {"vision/matrix", "vision/other", "projector/matrix", "projector/other"}
    assert run(tmp_path, built, texts[:2] + pictures[:2], steps=2).gradient_check.done
    with pytest.raises(GradientError, match="vision/matrix"):
        run(tmp_path, built, texts[:2] + pictures[:2], steps=2, spoil=cut_projector)


def test_rows_of_new_tokens_pass(tmp_path, built, samples):
    words = ("modules.text.freeze=true", "modules.vision.freeze=true", "modules.new_embeddings.freeze=false")
    trainer = run(tmp_path, built, samples, *words)
    assert trainer.gradient_check.done and "new_embeddings/other" in trainer.gradient_check.groups
