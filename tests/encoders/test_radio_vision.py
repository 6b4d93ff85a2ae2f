"""RADIO for packed pictures equals the public reference, transformers' native model, and itself in every batching."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import RadioConfig, RadioModel

from encoders.presets import VISION_PRESETS
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel, group_by_grid

FIXTURE = Path(__file__).parents[1] / "fixtures/radio/a_plain"
GRIDS = [(4, 6), (2, 2), (4, 6), (3, 5)]


def tiny(**options) -> RadioVisionModel:
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_img_size=96, num_cls_tokens=2)
    return RadioVisionModel(RadioConfig(**{**sizes, "num_registers": 2, "initializer_range": 0.1, **options})).eval()


def to_patches(image: torch.Tensor, patch: int = 16) -> torch.Tensor:
    """(N, C, H, W) -> (N*h*w, C*P*P), channel-major."""
    n, c, h, w = image.shape
    x = image.view(n, c, h // patch, patch, w // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, c * patch * patch)


@pytest.fixture(scope="module")
def reference() -> RadioVisionModel:
    facts = json.loads((FIXTURE / "config.json").read_text())
    config = RadioConfig(
        hidden_size=facts["embed_dim"],
        num_hidden_layers=facts["depth"],
        num_attention_heads=facts["num_heads"],
        max_img_size=facts["cpe_max_size"],
        num_cls_tokens=facts["num_cls_tokens"],
        num_registers=facts["num_registers"],
        summary_idxs=facts["summary_idxs"],
        norm_mean=facts["norm_mean"],
        norm_std=facts["norm_std"],
    )
    state = {}
    for key, value in load_file(FIXTURE / "weights.safetensors").items():
        key = key.removeprefix("radio_model.")
        for old, new in (
            ("model.patch_generator.embedder", "embeddings.patch_projection"),
            ("model.patch_generator.pos_embed", "embeddings.position_embedding"),
            ("model.patch_generator.cls_token.token", "embeddings.cls_register_token"),
            ("model.blocks", "encoder.layer"),
            ("attn.proj", "attention.o_proj"),
        ):
            key = key.replace(old, new)
        if "attn.qkv" in key:
            parts = zip(("q_proj", "k_proj", "v_proj"), value.chunk(3, dim=0))
            state.update({key.replace("attn.qkv", f"attention.{name}"): part for name, part in parts})
        else:
            state[key] = value
    model = RadioVisionModel(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert all("layer_scale" in key for key in missing), missing
    assert not unexpected, unexpected
    return model.eval()


@pytest.mark.parametrize("how", ["dense", "packed"])
def test_features_equal_the_reference_implementation(reference, how):
    inputs, outputs = (load_file(FIXTURE / f"{name}.safetensors") for name in ("inputs", "outputs"))
    names = ["square", "wide", "tall", "photo"]
    grids = [(x.shape[1] // 16, x.shape[2] // 16) for name in names for x in inputs[name]]
    pixels = torch.cat([to_patches(inputs[name]) for name in names])
    want = torch.cat([outputs[f"{name}.features"].flatten(0, 1) for name in names])
    with torch.no_grad():
        got = reference(pixels, grids=grids, how=how).features
    torch.testing.assert_close(got, want, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("how", ["dense", "packed", "auto"])
def test_every_batching_equals_the_native_packed_forward(how):
    model = tiny()
    native = RadioModel(model.config).eval()
    native.load_state_dict(model.state_dict())
    pixels = torch.rand(sum(h * w for h, w in GRIDS), 768)
    with torch.no_grad():
        want = native(pixels, image_grid_hw=torch.tensor(GRIDS)).features
        torch.testing.assert_close(model(pixels, grids=GRIDS, how=how).features, want, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model(pixels, image_grid_hw=torch.tensor(GRIDS)).features, want)


def test_dense_images_still_run_natively():
    model = tiny()
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        native = model(images)
        packed = model(to_patches(images), grids=[(2, 3), (2, 3)])
    assert native.summary.shape == (2, 2 * 32)
    torch.testing.assert_close(packed.features, native.features.flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_tubelets_and_pictures_share_one_pass_and_equal_the_native_video_forward():
    model = tiny(video_temporal_patch_size=2)
    frames, picture = torch.rand(2, 6, 32, 32), torch.rand(1, 3, 32, 32)
    tubelets = to_patches(frames)  # (t, c) lie on one axis, frame-major, as in the native dense forward
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        both = model(to_patches(picture), tubelets=tubelets, grids=[(2, 2)] * 3).features
        assert len(calls) == 1
        mean = model.input_conditioner.norm_mean.repeat(2, 1, 1)
        std = model.input_conditioner.norm_std.repeat(2, 1, 1)
        conditioner, model.input_conditioner = model.input_conditioner, torch.nn.Identity()
        want = model((frames - mean) / std).features.flatten(0, 1)
        model.input_conditioner = conditioner
    torch.testing.assert_close(both[4:], want, atol=1e-5, rtol=1e-4)


def test_absent_streams_get_zero_gradients_while_training():
    model = tiny(video_temporal_patch_size=2).train()
    model(torch.rand(4, 768), grids=[(2, 2)]).features.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not model.embeddings.video_patch_projection.weight.grad.any()


def test_kept_positions_follow_the_weights():
    model = tiny()
    pixels = torch.rand(8, 768)
    with torch.no_grad():
        first = model(pixels, grids=[(2, 4)]).features
        model.embeddings.position_embedding.mul_(2)
        second = model(pixels, grids=[(2, 4)]).features
        assert not torch.allclose(first, second)
        model.embeddings.position_embedding.data.mul_(2)  # invisible to version counters, as optimizers write
        model.train().eval()
        assert not torch.allclose(second, model(pixels, grids=[(2, 4)]).features)


def test_conditioning_and_positions_are_float32_under_bfloat16():
    model = tiny()
    pixels = torch.rand(24, 768)
    seen = []
    hook = model.embeddings.patch_projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        exact = model(pixels, grids=[(4, 6)]).features
        conditioned = model.condition(pixels)
        half = model.to(torch.bfloat16)
        assert half.condition(pixels).dtype == torch.float32
        rough = half(pixels, grids=[(4, 6)]).features
    hook.remove()
    assert rough.dtype == torch.bfloat16 and model.embeddings.positions((4, 6)).dtype == torch.float32
    # what reaches the projection is rounded once from float32, not computed from rounded pixels
    torch.testing.assert_close(seen[1].float(), conditioned, atol=0.02, rtol=0.01)
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_uint8_patches_of_a_cache_equal_floats():
    model = tiny()
    levels = torch.randint(0, 256, (4, 768), dtype=torch.uint8)
    with torch.no_grad():
        a = model(levels, grids=[(2, 2)]).features
        b = model(levels.float() / 255, grids=[(2, 2)]).features
    assert torch.equal(a, b)


def test_patches_that_do_not_fit_their_grids_are_refused():
    with pytest.raises(ValueError, match="9 patches.*describe 8"):
        tiny()(torch.rand(9, 768), grids=[(2, 4)])
    with pytest.raises(ValueError, match="video_temporal_patch_size"):
        tiny()(None, tubelets=torch.rand(4, 1536), grids=[(2, 2)])


def test_group_by_grid_keeps_positions():
    assert group_by_grid(GRIDS) == [((4, 6), [0, 2]), ((2, 2), [1]), ((3, 5), [3])]


@pytest.mark.parametrize("name", VISION_PRESETS)
def test_preset_has_the_exact_parameter_count(name):
    preset = VISION_PRESETS[name]
    with torch.device("meta"):
        model = RadioVisionModel(preset.config())
    assert sum(p.numel() for p in model.parameters()) == preset.parameters


def test_parameter_counts_without_the_position_table():
    """The figures papers quote: 631M for H, 412M for SO400M (NVlabs/RADIO; C-RADIOv4 report)."""
    without = {}
    for name in ("C-RADIOv4-H", "C-RADIOv4-SO400M", "C-RADIOv2-VLM-H"):
        config = VISION_PRESETS[name].config()
        without[name] = VISION_PRESETS[name].parameters - (config.max_img_size // 16) ** 2 * config.hidden_size
    assert without["C-RADIOv4-H"] == 630_755_840
    assert without["C-RADIOv4-SO400M"] == 412_425_072
    assert without["C-RADIOv2-VLM-H"] == 630_753_280
    assert int(1152 * VISION_PRESETS["C-RADIOv4-SO400M"].config().mlp_ratio) == 4304


@pytest.mark.parametrize("options", [{}, {"vitdet_window_size": 2, "vitdet_num_global": 1}], ids=["global", "windows"])
def test_gradients_arrive_in_one_order_in_every_batching(options):
    """DeepSpeed reduces gradients in the order in which they arrive on each rank. Where batches of one grid and of
    several gave another order, two ranks summed different parameters, and training went on with nonsense."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "max_img_size": 96}
    model = RadioVisionModel(RadioEncoderConfig(**sizes, video_temporal_patch_size=2, **options)).train()

    def arrivals(pictures, videos, how) -> list[str]:
        count = [sum(h * w for h, w in grids) for grids in (pictures, videos)]
        pixels = torch.rand(count[0], 3 * 256) if pictures else None
        tubelets = torch.rand(count[1], 6 * 256) if videos else None
        order: list[str] = []
        hooks = [
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
            for name, parameter in model.named_parameters()
        ]
        model(pixels, tubelets=tubelets, grids=pictures + videos, how=how).features.sum().backward()
        for hook in hooks:
            hook.remove()
        return order

    wanted = arrivals([(4, 6)], [], "dense")
    assert len(wanted) == len([p for p in model.parameters()])
    for pictures, videos in (
        ([(4, 6), (4, 6)], []),
        ([(4, 6), (2, 4), (4, 6)], []),
        ([(2, 2), (4, 2)], [(4, 4), (2, 2)]),
        ([], [(4, 4)]),
        ([], [(4, 4), (2, 2), (4, 4)]),
    ):
        for how in ("dense", "packed"):
            # the two projections are leaves of one sum: which comes first is the same in all batches that have both
            got = arrivals(pictures, videos, how)
            assert got == wanted, (pictures, videos, how)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("grids", [[(4, 6), (4, 6)], [(4, 6), (2, 4)]], ids=["equal", "mixed"])
def test_hidden_states_of_packed_pictures(window, grids):
    """As in the native model: of the whole packed sequence, whatever the grids."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "max_img_size": 96}
    model = RadioVisionModel(RadioEncoderConfig(**sizes, vitdet_window_size=window, vitdet_num_global=1)).eval()
    pixels = torch.rand(sum(h * w for h, w in grids), 3 * 256)
    with torch.no_grad():
        out = model(pixels, image_grid_hw=torch.tensor(grids), output_hidden_states=True)
        plain = model(pixels, image_grid_hw=torch.tensor(grids))
    assert len(out.hidden_states) == 5 and out.hidden_states[0].shape == (1, len(out.last_hidden_state), 32)
    assert torch.equal(out.hidden_states[-1][0], out.last_hidden_state)
    assert torch.allclose(out.last_hidden_state, plain.last_hidden_state, atol=2e-5)
