"""Windows, chosen blocks, class tokens, normalised features in the VLM: they equal a slow twin, and training holds."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.model_inputs import EVERYTHING, batch, mixed_samples, sample, tiny_config, tiny_model
from tests.helpers.tiny_vlm import build_tiny
from training.freezing import apply_freezing
from training.recipe import Module, Modules
from vlm.errors import RadioVLMError
from vlm.vision_features import DEFAULT_FEATURES

GRIDS = [(4, 6), (2, 2), (4, 6), (6, 2)]
WINDOW = {key: value for key, value in EVERYTHING.items() if "vitdet" in key or key == "tower_num_hidden_layers"}
# what is chosen, by name; each is run with and without the others
CHOICES = {
    "window": WINDOW,
    "phi-s": dict(tower_feature_normalizer=True, vision_features={"normalize": "layer_norm"}),
    "early block": dict(tower_num_hidden_layers=4, vision_features={"layers": [1]}),
    "early blocks, windows": {**WINDOW, "vision_features": {"layers": [0, 2], "summary": False}},
    "everything": EVERYTHING,
}


def labelled(inputs: dict) -> dict:
    return {**inputs, "labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)}


def patches(grids: list, seed: int = 0) -> torch.Tensor:
    return torch.rand(sum(h * w for h, w in grids), 48, generator=torch.Generator().manual_seed(seed))


def to_image(rows: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return rows.view(h, w, 3, 4, 4).permute(2, 0, 3, 1, 4).reshape(1, 3, h * 4, w * 4)


def slow_twin(model, rows: torch.Tensor, grids: list) -> torch.Tensor:
    """One picture at a time through the encoder's public functions; the class tokens put in place by hand."""
    tower, projector, wanted = model.vision_model, model.multi_modal_projector, model.config.vision_features
    tokens = []
    for (h, w), own in zip(grids, rows.split([h * w for h, w in grids])):
        image = to_image(own, h, w)
        out = tower(image)
        taken = [out.features[0]]
        if wanted["layers"] is not None:
            taken = tower.forward_intermediates(
                image, wanted["layers"], output_fmt="NLC", aggregation=wanted["aggregation"], intermediates_only=True
            )
            taken = [block[0] for block in taken]
        if wanted["normalize"] == "layer_norm":
            centred = [x - x.mean(-1, keepdim=True) for x in taken]
            taken = [x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() for x in centred]
        if wanted["summary"]:
            for slot in tower.config.summary_idxs:
                token = F.layer_norm(out.last_hidden_state[0, slot], (16,))
                head = projector.summary_head
                token = token * head.layer_norm.weight + head.layer_norm.bias
                tokens.append(head.linear(token)[None])
        tokens.append(projector(torch.cat(taken, -1), [(h, w)]))
    return torch.cat(tokens)


@pytest.mark.parametrize("how", ["packed", "dense"])
@pytest.mark.parametrize("choice", CHOICES)
def test_features_equal_a_slow_twin_in_every_batching(choice, how, monkeypatch):
    model = tiny_model(**CHOICES[choice])
    monkeypatch.setattr(model.vision_model, "_choose", lambda *_: how)
    rows = patches(GRIDS)
    with torch.no_grad():
        got = model.get_image_features(rows, torch.tensor(GRIDS))
        want = slow_twin(model, rows, GRIDS)
    assert len(got) == sum(model.tokens_per_picture(torch.tensor(GRIDS)))
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"tower_vitdet_window_size": None},
        {"tower_intermediate_normalizer": None},
        {"vision_features": {**EVERYTHING["vision_features"], "aggregation": "sparse"}},
        {"vision_features": {**EVERYTHING["vision_features"], "layers": [0, 2]}},
        {"vision_features": {**EVERYTHING["vision_features"], "normalize": "none"}},
    ],
    ids=["window", "normalizer", "aggregation", "layers", "normalize"],
)
def test_every_choice_changes_the_features(change):
    rows, grids = patches([(4, 4)]), torch.tensor([(4, 4)])
    model, other = tiny_model(**EVERYTHING), tiny_model(**{**EVERYTHING, **change})
    other.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        base, changed = (one.get_image_features(rows, grids) for one in (model, other))
    assert base.shape == changed.shape and (base - changed).abs().max() > 1e-3


def test_phi_s_is_applied_to_the_final_features():
    model = tiny_model(tower_feature_normalizer=True)
    rows, grids = patches([(2, 2)]), torch.tensor([(2, 2)])
    with torch.no_grad():
        base = model.get_image_features(rows, grids)
        model.vision_model.feature_normalizer.mean.add_(1.0)
        assert (model.get_image_features(rows, grids) - base).abs().max() > 1e-3


@pytest.mark.parametrize("tubelet", [1, 2])
def test_any_mix_of_media_equals_one_by_one_with_everything(tubelet):
    model = tiny_model(tubelet=tubelet if tubelet > 1 else None, **EVERYTHING)
    samples = mixed_samples(tubelet, summary=2)
    inputs = batch(*samples)
    with torch.no_grad():
        together = [row[mask.bool()] for row, mask in zip(model(**inputs).logits, inputs["attention_mask"])]
        for item, row in zip(samples, together):
            alone = model(**batch(item)).logits[0]
            torch.testing.assert_close(row, alone, atol=2e-5, rtol=1e-4)


def test_blocks_behind_the_last_one_asked_for_run_only_when_they_train():
    model, calls = tiny_model(tower_num_hidden_layers=4, vision_features={"layers": [0, 1]}), []
    model.vision_model.encoder.layer[2].register_forward_hook(lambda *_: calls.append(1))
    inputs = labelled(batch(sample(2, (2, 2), 3)))
    model(**inputs)
    assert not calls
    model.train()(**inputs).loss.backward()
    assert len(calls) == 1 and all(p.grad is not None for p in model.parameters())
    model.vision_model.requires_grad_(False)
    model(**inputs).loss.backward()
    assert len(calls) == 1, "a frozen tower waits for no gradients"


@pytest.mark.parametrize("choice", CHOICES)
def test_text_only_training_touches_every_parameter(choice):
    model = tiny_model(tubelet=2, **CHOICES[choice]).train()
    inputs = labelled(batch(sample(6), sample(4), side="right"))
    model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith(("vision_model", "multi_modal_projector")):
            assert not parameter.grad.any(), name


@pytest.mark.parametrize("choice", CHOICES)
def test_gradients_are_the_same_packed_and_checkpointed(choice, monkeypatch):
    summary = 2 if choice == "everything" else 0
    inputs, gradients = labelled(batch(*mixed_samples(summary=summary), side="right")), []
    for how, checkpointing in (("dense", False), ("packed", False), ("packed", True), ("dense", True)):
        model = tiny_model(**CHOICES[choice]).train()
        monkeypatch.setattr(model.vision_model, "_choose", lambda *_, how=how: how)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**inputs, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0]["vision_model.encoder.layer.0.mlp.fc1.weight"].any()
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, msg=name, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_encoder_freezes_and_the_summary_head_trains_with_the_projector(frozen):
    model = tiny_model(**EVERYTHING).train()
    apply_freezing(model, Modules(vision=Module(freeze=frozen), text=Module(freeze=True)))
    model(**labelled(batch(*mixed_samples(summary=2), side="right"))).loss.backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"multi_modal_projector"} | (set() if frozen else {"vision_model"})
    assert model.multi_modal_projector.summary_head.linear.weight.grad.any()


@pytest.mark.parametrize("tubelet", [None, 2])
def test_processor_and_model_count_alike(tubelet):
    from PIL import Image

    from encoders.presets import VISION_PRESETS

    vision = VISION_PRESETS["tiny"].config()
    vision.video_temporal_patch_size = tubelet
    model, processor = build_tiny(
        vision=vision,
        features={"layers": [0, -1], "summary": True},
        vision_options={"vitdet_window_size": 3, "vitdet_num_global": 1},
        geometry={"min_num_patches": 4, "max_num_patches": 256},
        video={"max_frames": 3, "max_num_patches": 64},
    )
    assert model.config.geometry["multiple"] == 6 and processor.fingerprint == model.config.fingerprint
    frames = [Image.new("RGB", (70, 40), color) for color in ("red", "green", "blue")]
    content = [{"type": "image", "image": frames[0]}, {"type": "video", "video": frames}, {"type": "text", "text": "?"}]
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    grid = inputs["image_grid_hw"][0].tolist()
    assert processor.num_image_tokens(40, 70) == 1 + grid[0] * grid[1] // 4
    assert (inputs["mm_token_type_ids"] == 1).sum() == 1 + grid[0] * grid[1] // 4
    count, h, w = inputs["video_grid_thw"][0].tolist()
    assert count == (3 if tubelet is None else 2) and h % 6 == w % 6 == 0
    assert (inputs["mm_token_type_ids"] == 2).sum() == count * (1 + h * w // 4)
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()
    plain, _ = build_tiny(geometry={"multiple": 6, "max_num_patches": 256, "min_num_patches": 4})
    inputs["geometry_fingerprint"] = plain.config.fingerprint
    model._geometry_checked = False
    with pytest.raises(RadioVLMError, match="do not belong together"):
        model(**inputs)


def test_defaults_are_the_features_of_the_last_block():
    config = tiny_config()
    assert config.vision_features == DEFAULT_FEATURES and "summary_tokens" not in config.projector_config
    wanted = tiny_config(tower_num_hidden_layers=4, vision_features={"layers": [-1, 1]})
    assert wanted.vision_features["layers"] == [1, 3] and wanted.fingerprint == config.fingerprint
    summary = tiny_config(vision_features={"summary": True})
    assert summary.projector_config["summary_tokens"] == 1 and summary.fingerprint != config.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(vision_features={"layers": [2]}), r"vision_features\['layers'\].*vision_config has blocks 0 to 1"),
        (dict(vision_features={"layers": 1}), "must be a list of block numbers"),
        (dict(vision_features={"layers": []}), "must be a list of block numbers"),
        (dict(vision_features={"aggregation": "dense"}), "'dense', but .*'layers'"),
        (dict(vision_features={"aggregation": "max"}), "known: sparse, dense"),
        (dict(vision_features={"normalize": "phi-s"}), "known: none, layer_norm"),
        (dict(vision_features={"layer": [1]}), "known: layers, aggregation"),
        (dict(projector_config={"summary_tokens": 1}), r"\['summary_tokens'\] \(1\).*vision_features\['summary'\]"),
        (
            dict(vision_features={"summary": True}, projector_config={"summary_tokens": 2}),
            r"\['summary_tokens'\] \(2\).*vision_features\['summary'\] \(True, so 1",
        ),
        (
            dict(**WINDOW, geometry={"multiple": 5}, projector_config={"downsample": 1}),
            r"geometry\['multiple'\] \(5\).*vision_config.vitdet_window_size \(2\)",
        ),
        (
            dict(WINDOW, tower_vitdet_window_size=4, video={"max_num_patches": 8}),
            r"video\['max_num_patches'\] \(8\).*vitdet_window_size 4",
        ),
        (
            dict(WINDOW, tower_vitdet_window_size=4, geometry={"mode": "fixed", "size": [24, 32]}),
            r"size=\[24, 32\].*vision_config.vitdet_window_size is 4",
        ),
        (dict(tower_vitdet_num_global=2, tower_vitdet_window_size=2), "no windowed block"),
    ],
)
def test_contradictions_name_both_fields(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**options)


@pytest.mark.parametrize(("window", "downsample", "multiple"), [(4, 2, 4), (3, 2, 6), (2, 4, 4), (None, 2, 2)])
def test_grids_are_multiples_of_window_and_projector(window, downsample, multiple):
    options = {**WINDOW, "tower_vitdet_window_size": window}
    config = tiny_config(**options, projector_config={"downsample": downsample})
    assert config.geometry["multiple"] == config.grid_multiple == multiple
