"""`RadioVLMConfig`: round trips, refusals where the config is built, formats of the past and the future."""

import copy
import json

import pytest
from transformers import AutoConfig, RadioConfig

from encoders.radio_config import RadioEncoderConfig
from tests.helpers.model_inputs import text_config, tiny_config
from vlm.configuration_radio_vlm import RadioVLMConfig
from vlm.errors import RadioVLMError
from vlm.migrations import FORMAT_VERSION, migrate_config, weight_renames


def test_round_trip_keeps_everything(tmp_path):
    config = tiny_config(geometry={"max_num_patches": 2048}, video={"max_frames": 3}, special_tokens={"image": "<pic>"})
    config.base_models = {"vision": "a", "text": "b"}
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, RadioVLMConfig)
    assert {**again.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    assert again.base_models == {"vision": "a", "text": "b"}
    assert again.text_config.time_step_limit[1] == float("inf")
    assert again.get_text_config() is again.text_config
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == FORMAT_VERSION


def test_defaults_come_from_the_parts():
    config = tiny_config(tubelet=2)
    assert config.geometry["patch_size"] == 4 and config.geometry["multiple"] == 2
    assert config.video["temporal_patch_size"] == 2
    assert config.projector_config["hidden_size"] == 4 * 32
    assert RadioVLMConfig().text_config.model_type == "nemotron_h"
    mlp = tiny_config(projector_config={"type": "mlp"})
    assert mlp.geometry["multiple"] == 1 and mlp.projector_config["norm"] == "layernorm"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(geometry={"patch_size": 16}), r"geometry\['patch_size'\] \(16\).*vision_config.patch_size \(4\)"),
        (dict(geometry={"multiple": 1}), r"geometry\['multiple'\] \(1\).*downsample"),
        (dict(geometry={"mode": "tiled"}), "tiled.*tiles"),
        (dict(geometry={"mode": "tiles", "tile_size": 30}), "tile_size"),
        (dict(geometry={"mode": "tiles", "scales": [32, 64]}), "scales"),
        (dict(video={"pruning_rate": 1.0}), r"pruning_rate=1.0"),
        (dict(video={"temporal_pool": 0}), "temporal_pool"),
        (dict(video={"pruning_rate": 0.5}, projector_config={"type": "token_merging"}), "pruning_rate.*token_merging"),
        (dict(video={"temporal_pool": 2}, projector_config={"type": "token_merging"}), "temporal_pool.*token_merging"),
        (dict(projector_config={"head": "none"}), "head"),
        (dict(geometry={"mode": "fixed", "size": [30, 32]}), "size"),
        (dict(geometry={"min_num_patches": 64, "max_num_patches": 16}), "max_num_patches=16"),
        (dict(geometry={"max_patches": 16}), "max_patches"),
        (dict(video={"temporal_patch_size": 2}), "temporal_patch_size"),
        (dict(projector_config={"type": "nonsense"}), "known projectors"),
    ],
)
def test_contradictions_are_refused_where_the_config_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**options)


def test_parts_keep_the_attention_they_were_built_with():
    """A composite config that forgets it would leave the language model without a causal mask."""
    text, vision = text_config(), RadioConfig(hidden_size=16, num_attention_heads=2)
    text._attn_implementation, vision._attn_implementation = "sdpa", "eager"
    config = RadioVLMConfig(vision, text)
    assert config.text_config._attn_implementation == "sdpa"
    assert config.vision_config._attn_implementation == "eager"


@pytest.mark.parametrize("extra", [{}, {"vitdet_window_size": 2, "vitdet_num_global": 1, "feature_normalizer": True}])
def test_the_encoder_is_always_in_its_wider_form(extra, tmp_path, recwarn, caplog):
    """Whatever it is given as, and through every way of writing and reading, without a warning."""
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_img_size=64, patch_size=4)
    given = [RadioEncoderConfig(**sizes, **extra), {**sizes, **extra, "model_type": "radio_encoder"}]
    given += [RadioConfig(**sizes, **extra), {**sizes, **extra, "model_type": "radio"}, {**sizes, **extra}]
    for number, vision in enumerate(given):
        config = RadioVLMConfig(vision_config=vision, text_config=text_config())
        config.save_pretrained(tmp_path / str(number))
        written = json.loads((tmp_path / str(number) / "config.json").read_text())["vision_config"]
        assert written["model_type"] == ("radio_encoder" if extra else "radio")
        read = [RadioVLMConfig.from_dict(config.to_dict()), AutoConfig.from_pretrained(tmp_path / str(number))]
        for again in (config, copy.deepcopy(config), *read):
            assert type(again.vision_config) is RadioEncoderConfig and again.vision_config.hidden_size == 16
            assert all(getattr(again.vision_config, name) == value for name, value in extra.items())
            assert again.geometry["multiple"] == 2 and not again.vision_config.cpe_training
    assert RadioVLMConfig(vision_config=given[0], text_config=text_config()).vision_config is given[0], "not a copy"
    assert not [w for w in recwarn if "radio" in str(w.message).lower()] and "radio" not in caplog.text.lower()


def test_an_encoder_that_is_no_radio_or_cannot_be_is_refused():
    from transformers import CLIPVisionConfig

    for vision in (CLIPVisionConfig(), {"model_type": "clip_vision_model"}):
        with pytest.raises(RadioVLMError, match="'clip_vision_model' is no RADIO encoder"):
            RadioVLMConfig(vision_config=vision, text_config=text_config())
    with pytest.raises(RadioVLMError, match="vision_config: .*no windowed block"):
        RadioVLMConfig(vision_config={"num_hidden_layers": 2, "vitdet_window_size": 2}, text_config=text_config())


def test_teacher_heads_have_no_place_in_the_config():
    half = {"version": "v2", "input_dim": 16, "hidden_dim": 8, "output_dim": 8, "num_inner": 0, "pre_norm": False}
    heads = {"t": {"head_idx": 0, "summary": half, "feature": {**half, "upsample_factor": 1}}}
    vision = RadioEncoderConfig(hidden_size=16, num_attention_heads=2, adaptors=heads)
    vision._attn_implementation = "eager"
    config = RadioVLMConfig(vision_config=vision, text_config=text_config())
    assert config.vision_config.adaptors is None and vision.adaptors, "the encoder's own config is left alone"
    assert config.vision_config._attn_implementation == "eager"


def test_code_nested_in_a_config_is_never_run(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    evil = {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": f"{tmp_path}--evil.Evil"}}
    with pytest.raises(RadioVLMError, match="never run"):
        RadioVLMConfig(text_config=evil)
    native = {**text_config().to_dict(), "auto_map": {"AutoModelForCausalLM": f"{tmp_path}--evil.Evil"}}
    config = RadioVLMConfig(vision_config=tiny_config().vision_config, text_config=native)
    assert not hasattr(config.text_config, "auto_map")
    assert not marker.exists()


def test_newer_formats_are_refused_and_older_ones_migrated(tmp_path):
    with pytest.raises(RadioVLMError, match="upgrade radio-vlm"):
        migrate_config({"format_version": FORMAT_VERSION + 1})
    migrated, version = migrate_config({"downsample_ratio": 0.5, "ps_version": "v1", "img_context_token_id": 7})
    assert version == 0 and migrated["format_version"] == FORMAT_VERSION
    assert migrated["projector_config"]["ps_version"] == "v1" and migrated["image_token_id"] == 7
    assert weight_renames(FORMAT_VERSION) == {} and weight_renames(0)
