"""Encoder features at the first step: the figures against a direct computation, and what is said about odd ones."""

import json
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.stage_runs import small_vlm
from training.watch.features import EncoderFeatures, notes

STATE = SimpleNamespace(global_step=1, is_world_process_zero=True)


def batch(processor, *contents) -> dict:
    rows = [processor.encode([{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}])
            for content in contents]  # fmt: skip
    return processor.collate(rows)


def picture(value: float = 0.5) -> list[dict]:
    from PIL import Image

    image = Image.new("RGB", (64, 48), tuple(round(255 * v) for v in (value, 1 - value, 0.3)))
    return [{"type": "image", "image": image}, {"type": "text", "text": "?"}]


def test_figures_are_those_of_what_enters_the_projector(tmp_path):
    model, processor = small_vlm()
    watch = EncoderFeatures(model, tmp_path, torch.device("cpu"))
    model.train()
    model(**batch(processor, "only text"))  # a blank patch goes through the projector; it is no picture
    watch.on_step_end(None, STATE, None)
    assert not (tmp_path / "encoder_features.json").exists()
    entered = []
    hook = model.multi_modal_projector.register_forward_pre_hook(lambda module, args: entered.append(args[0].detach()))
    model(**batch(processor, picture(0.2), "text", picture(0.9)))
    hook.remove()
    model(**batch(processor, picture(0.4)))  # a second micro-batch: the first one counts
    watch.on_step_end(None, STATE, None)
    found = json.loads((tmp_path / "encoder_features.json").read_text())
    features = entered[0].double()
    assert found["std"] == pytest.approx(features.std(unbiased=False).item(), rel=1e-4)
    assert found["mean"] == pytest.approx(features.mean().item(), rel=1e-3, abs=1e-6)
    assert found["largest"] == pytest.approx(features.abs().max().item(), rel=1e-5)
    assert found["values"] == features.numel() and found["pictures"] == 2
    assert not watch.hooks and not model._forward_pre_hooks and not model.multi_modal_projector._forward_pre_hooks


def test_a_resumed_run_and_one_without_pictures_do_not_watch_for_ever(tmp_path):
    model, processor = small_vlm()
    watch = EncoderFeatures(model, tmp_path, torch.device("cpu"))
    for _ in range(20):
        watch.on_step_end(None, STATE, None)
    assert not watch.hooks
    watch = EncoderFeatures(model, tmp_path, torch.device("cpu"))
    watch.on_train_begin(None, SimpleNamespace(global_step=5), None)
    assert not watch.hooks and not list(tmp_path.iterdir())


def figures(std: float = 1.0, mean: float = 0.0, side: float = 768.0, norm: str | None = None) -> dict:
    sides = {"smallest": side, "median": side, "largest": side}
    return {"std": std, "mean": mean, "norm_before_projector": norm, "picture_side_px": sides}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (figures(), None),
        (figures(std=45.0), "standard deviation of 45"),
        (figures(std=0.01), "standard deviation of 0.01"),
        (figures(std=45.0, norm="layernorm"), None),  # taken away before the first layer
        (figures(std=0.0, norm="layernorm"), "all alike"),
        (figures(std=float("nan")), "not finite"),
        (figures(side=336.0), "336 px a side"),
    ],
)
def test_notes(found, words):
    said = notes(found, image_size=768)
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


def test_an_encoder_made_for_small_pictures_gets_no_note():
    assert notes(figures(side=64.0), image_size=128) == []
