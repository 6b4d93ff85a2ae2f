"""From `args` and shapes to a configuration: what follows from them, and every contradiction by its name."""

import pytest
from transformers.models.radio.modeling_radio import RadioSwiGLUFFN

from encoders import RadioCheckpointError, RadioEncoder
from encoders.radio_config import RadioEncoderConfig
from encoders.reference_args import (
    BACKBONES,
    _mlp_ratio,
    config_from_args,
    refuse_unsupported,
    summary_indices,
    token_layout,
)
from encoders.weight_names import rename
from tests.helpers.random_radio import random_radio, write_hub, write_remote
from tests.helpers.slow_radio import PublicRadio


def shapes_of(model: PublicRadio) -> dict[str, tuple[int, ...]]:
    """Shapes under our names."""
    shapes = {}
    for name, (stored, part) in rename(model.weights)[0].items():
        rows, *rest = model.weights[stored].shape
        shapes[name] = (rows // (part[1] if part else 1), *rest)
    return shapes


def config_of(model: PublicRadio, hub: bool = False, **said) -> RadioEncoderConfig:
    return config_from_args(model.args, shapes_of(model), "here", hub, said)


def without(model: PublicRadio, part: str) -> PublicRadio:
    model.weights = {name: value for name, value in model.weights.items() if part not in name}
    return model


# ---- what follows ---------------------------------------------------------------------------------------------------


def test_sizes_come_from_the_weights():
    model = random_radio(width=48, depth=5, hidden=100, patch_size=14, cpe_max_size=98, video=2, qkv_bias=False)
    config = config_of(model)
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.patch_size)
    assert sizes == (48, 5, 4, 14) and config.max_img_size == 98 and config.video_temporal_patch_size == 2
    assert int(48 * config.mlp_ratio) == 100 and not config.qkv_bias and config.is_native
    for name in ("embed_dim", "depth"):  # the weights tell these
        model.args["model_kwargs"].pop(name)
    model.args["model"] = "vit_unheard_of"
    assert config_of(model).to_dict() == config.to_dict()


def test_what_is_beyond_the_native_class_is_seen():
    config = config_of(random_radio(dino=True, patch_normalizer=True, normalizer=True, inter_normalizer="per_layer"))
    assert config.patch_bias and config.patch_norm and config.final_norm and config.use_swiglu_ffn
    assert config.feature_normalizer and config.intermediate_normalizer == {"rot_per_layer": True}
    assert config_of(random_radio(inter_normalizer="shared")).intermediate_normalizer == {"rot_per_layer": False}
    assert not config_of(random_radio(model_norm=True), hub=True).patch_bias


def test_a_stored_norm_that_the_training_did_not_use_is_left_out(tmp_path):
    """timm models have one; the reference replaces it unless `model_norm` says to keep it."""
    model = random_radio(model_norm=True)
    assert config_of(model).final_norm
    model.args["model_norm"] = False
    encoder = RadioEncoder.from_pretrained(write_remote(model, tmp_path / "remote"))
    assert not encoder.config.final_norm
    left = encoder.report.left_out
    assert set(left) == {f"radio_model.model.norm.{part}" for part in ("weight", "bias")}
    assert "model_norm" in left["radio_model.model.norm.weight"]


@pytest.mark.parametrize(("name", "sizes"), [(name, sizes) for name, sizes in BACKBONES.items()])
def test_heads_follow_from_the_backbones_name(name, sizes):
    width, depth, heads = sizes
    assert width % heads == 0
    model = random_radio()
    model.args["model"], model.args["model_kwargs"] = f"{name}_patch16_224", {}
    with pytest.raises(RadioCheckpointError, match=rf"here: the weights have width 32, but args \(.*\) says {width}"):
        config_of(model)
    model.args["model_kwargs"] = {"embed_dim": 32, "depth": 3}
    if 32 % heads == 0:
        assert config_of(model).num_attention_heads == heads


@pytest.mark.parametrize("width", [1152, 768, 1280, 1536, 36, 48, 100])
def test_the_ratio_gives_exactly_the_stored_hidden_width(width):
    """`int(hidden_size * mlp_ratio)`, where a rounded ratio gives one less: 3.7361 gives 4303 for SO400M's 4304."""
    for hidden in [4304, *range(width, 5 * width, 7)]:
        assert int(width * _mlp_ratio(hidden, width, swiglu=False)) == hidden
    assert int(1152 * 3.7361) == 4303
    for hidden in range(8, 4 * width, 56):
        config = RadioEncoderConfig(hidden_size=width, mlp_ratio=_mlp_ratio(hidden, width, swiglu=True))
        wide = int(int(width * config.mlp_ratio) * 2 / 3)  # as `RadioSwiGLUFFN` computes it
        assert (wide + 7) // 8 * 8 == hidden


def test_the_gated_width_is_that_of_the_native_module():
    ratio = _mlp_ratio(4096, 1536, swiglu=True)  # ViT-g/14
    assert RadioSwiGLUFFN(RadioEncoderConfig(hidden_size=1536, mlp_ratio=ratio)).down_proj.in_features == 4096


# ---- tokens ---------------------------------------------------------------------------------------------------------


def args(*names: str, each: bool = True, **more) -> dict:
    return {"teachers": [{"name": name} for name in names], "cls_token_per_teacher": each, **more}


@pytest.mark.parametrize(
    ("said", "layout"),
    [
        (args("a", "b", "c", register_multiple=10), (3, 7)),
        (args("a", "b", "c", "d", register_multiple=8), (4, 4)),
        (args("a", "b", "c", "d", register_multiple=4), (4, 4)),  # an exact multiple: one more group
        (args("a", "b", "c", cpe_num_registers=5, register_multiple=8), (3, 5)),
        (args("a", "b", "c", cpe_num_registers=0, register_multiple=8), (3, 5)),
        (args("a", "b"), (2, 0)),
        (args("a", "b", each=False), (1, 0)),
        (args("a", "b", each=False, register_multiple=8), (1, 7)),
        (args("a", "b", "a", "b", "a", "b", register_multiple=4), (2, 2)),
        ({"teachers": [], "cls_token_per_teacher": True, "register_multiple": 4}, (1, 3)),
        ({"register_multiple": 4}, (1, 3)),
        (args("a", "b", each=None, register_multiple=8), (1, 7)),
    ],
)
def test_token_layout(said, layout):
    assert token_layout(said) == layout


def test_slots_in_the_registers_count_as_class_tokens():
    said = args("a", "b", register_multiple=8)
    said["teachers"][1]["token_slot"] = 5
    assert token_layout(said) == (6, 2)
    said["teachers"][1]["token_slot"] = None
    assert token_layout(said) == (2, 6)


def test_summary_rules():
    said = args("a", "b", "a", "c", "b")
    said["teachers"][1]["use_summary"] = False
    said["teachers"][4]["use_summary"] = False
    assert summary_indices(said, None, hub=True) == [0, 3]
    assert summary_indices(said, None, hub=False) == [0, 2, 3]
    assert summary_indices(said, [2, 1], hub=False) == [2, 1]
    assert summary_indices({**said, "cls_token_per_teacher": False}, None, hub=True) == [0]
    without = {name: value for name, value in said.items() if name != "cls_token_per_teacher"}  # older files
    assert summary_indices(without, None, hub=True) == [0, 3]
    assert token_layout({**without, "register_multiple": 8}) == (4, 4)  # the first "c" is entry 3
    assert summary_indices({**said, "model": "dinov2_vitg14_reg"}, [0, 1], hub=False) == [0]


# ---- contradictions -------------------------------------------------------------------------------------------------


def changed(**change) -> PublicRadio:
    model = random_radio()
    for name, value in change.items():
        target = model.args["model_kwargs"] if name in ("embed_dim", "depth", "num_heads") else model.args
        target[name] = value
    return model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"embed_dim": 64}, r"width 32, but args .* says 64"),
        ({"depth": 4}, r"depth 3, but args .* says 4"),
        ({"cpe_max_size": 128}, r"position rows 8, but args\['cpe_max_size'\] / patch size says 16"),
        ({"register_multiple": 16}, r"8 class and register tokens, but args describe 3 \+ 13 .*register_multiple"),
        ({"cpe_num_registers": 4}, r"8 class and register tokens, but args describe 3 \+ 4"),
        ({"teachers": [{"name": "a"}], "register_multiple": None}, r"8 class and register tokens.*1 \+ 0"),
        ({"in_chans": 4}, r"patches of 192 values are no squares of 4 channels"),
        ({"num_heads": 0, "model": "vit_mystery"}, r"heads of backbone 'vit_mystery' .*known: vit_tiny.*num_heads"),
    ],
)
def test_args_that_contradict_the_weights(change, said):
    with pytest.raises(RadioCheckpointError, match=f"^here: .*{said}"):
        config_of(changed(**change))


def test_a_patch_size_that_contradicts_the_weights(tmp_path):
    with pytest.raises(RadioCheckpointError, match="patch size 8, but config.json says 16"):
        config_of(random_radio(), patch_size=16)
    with pytest.raises(RadioCheckpointError, match="remote.*patch size 8, but config.json says 16"):
        RadioEncoder.from_pretrained(write_remote(random_radio(), tmp_path / "remote", patch_size=16))


@pytest.mark.parametrize("form", [write_remote, lambda model, path: write_hub(model, path.with_suffix(".pth.tar"))])
def test_lost_blocks(form, tmp_path):
    """The last block would be missed by nobody who counts the blocks that are there."""
    with pytest.raises(RadioCheckpointError, match="depth 2, but args .* says 3"):
        RadioEncoder.from_pretrained(str(form(without(random_radio(), ".blocks.2."), tmp_path / "last")))
    with pytest.raises(RadioCheckpointError, match=r"12 weights are missing: encoder.layer.1|16 weights are missing"):
        RadioEncoder.from_pretrained(str(form(without(random_radio(), ".blocks.1."), tmp_path / "middle")))
    with pytest.raises(RadioCheckpointError, match="no transformer blocks"):
        RadioEncoder.from_pretrained(str(form(without(random_radio(), ".blocks."), tmp_path / "all")))


def test_a_backbone_known_by_name_only_has_its_depth():
    model = random_radio(depth=11)
    model.args["model_kwargs"].pop("depth")  # vit_base_patch16_224
    with pytest.raises(RadioCheckpointError, match="depth 11, but args .* says 12"):
        config_of(model)


def test_tables_that_do_not_fit():
    model = random_radio()
    name = "radio_model.model.patch_generator.pos_embed"
    model.weights[name] = model.weights[name][:, :-1]
    with pytest.raises(RadioCheckpointError, match="here: 63 positions are no square"):
        config_of(model)
    model.weights[name] = random_radio(width=64).weights[name]
    with pytest.raises(RadioCheckpointError, match="position_embedding of width 64, but the patch projection says 32"):
        config_of(model)


def test_radio_without_cropped_positions():
    model = without(changed(cpe_max_size=None), "patch_generator")
    with pytest.raises(RadioCheckpointError, match="position_embedding is missing.*cpe_max_size: null.*not supported"):
        config_of(model)
    with pytest.raises(RadioCheckpointError, match="^here: the weight for .*patch_projection.weight is missing$"):
        config_of(without(random_radio(), "embedder"))


def test_summary_tokens_that_are_not_there():
    model = without(changed(teachers=[{"name": name} for name in "abca"]), "summary_idxs")
    assert config_of(model, hub=True).summary_idxs == [0, 1, 2]
    with pytest.raises(RadioCheckpointError, match=r"here: summary_idxs \[0, 1, 2, 3\].*num_cls_tokens=3"):
        config_of(model)


# ---- not supported --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("eradio_v2", "E-RADIO is not supported yet"),
        ("eradio", "E-RADIO"),
        ("radio1d_vit_huge_patch16", "RADIO1D is not supported yet"),
        ("vit_huge_patch16_224_1d", "RADIO1D"),
        ("vit_huge_patch16_xpos", "this backbone is not supported yet"),
        ("paligemma-896-student", "not supported yet"),
    ],
)
def test_other_architectures_by_name(model, said):
    with pytest.raises(RadioCheckpointError, match=rf"^file: .*{said}.*{model}"):
        refuse_unsupported(model, "file")
    checkpoint = changed(model=model)
    with pytest.raises(RadioCheckpointError, match=said):
        config_of(checkpoint)


@pytest.mark.parametrize("version", ["e-radio_v2", "c-radio_v4-1d-h"])
def test_other_architectures_by_release(version, tmp_path):
    remote = write_remote(random_radio(), tmp_path / "remote", version=version)
    with pytest.raises(RadioCheckpointError, match=f"remote.*{version} is not supported yet"):
        RadioEncoder.from_pretrained(remote)
    with pytest.raises(RadioCheckpointError, match=f"{version}.*not supported yet"):
        RadioEncoder.from_pretrained(version)
    with pytest.raises(RadioCheckpointError, match=f"{version}.*not supported yet"):
        RadioEncoder.from_pretrained(write_hub(random_radio(), tmp_path / f"{version}_half.pth.tar"))


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_huge_patch16_224", "dinov2_vitg14_reg", None, ""])
def test_supported_names_pass(name):
    refuse_unsupported(name, "file")
