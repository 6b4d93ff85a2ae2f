"""The table of names: every family there and back, hub names, what transformers writes, what is left out or unknown."""

import re

import pytest
import torch
from transformers import RadioConfig, RadioModel

from encoders.checkpoint_sources import open_checkpoint
from encoders.errors import RadioCheckpointError
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel
from encoders.tensor_files import MemoryTensors
from encoders.weight_names import LEFT_OUT, RenamedTensors, Source, left_out, public_names, rename

BASE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_img_size=64)
TEACHERS = [{"name": "clip"}, {"name": "siglip2-g"}, {"name": "clip"}, {"name": "dino_v3_7b"}]


def head(version: str, **more) -> dict:
    sizes = {"input_dim": 32, "hidden_dim": 24, "output_dim": 16, "num_inner": 2, "upsample_factor": 1}
    return {"version": version, "pre_norm": version == "v2", **sizes, **more}


ADAPTORS = {
    "siglip2-g": {"head_idx": 0, "summary": head("v2"), "feature": head("attn", num_blocks=2, num_heads=16)},
    "clip": {"head_idx": 1, "summary": head("v1"), "feature": head("v2")},
}
FAMILIES = {
    "plain": {},
    "video": {"video_temporal_patch_size": 2},
    "gated": {"use_swiglu_ffn": True, "patch_bias": True, "final_norm": True},
    "patch norm": {"patch_norm": True, "patch_bias": True},
    "normalizers": {"feature_normalizer": True, "intermediate_normalizer": {"rot_per_layer": True}},
    "adaptors": {"adaptors": ADAPTORS},
    "all": {
        "use_swiglu_ffn": True, "video_temporal_patch_size": 2, "patch_bias": True, "patch_norm": True,
        "final_norm": True, "feature_normalizer": True, "intermediate_normalizer": {"rot_per_layer": False},
        "adaptors": ADAPTORS,
    },
}  # fmt: skip


def model(family: str) -> RadioVisionModel:
    torch.manual_seed(0)
    made = RadioVisionModel(RadioEncoderConfig(**BASE, **FAMILIES[family]))
    with torch.no_grad():
        for tensor in (*made.parameters(), *(b for b in made.buffers() if b.is_floating_point())):
            tensor.normal_()
    return made


def read_back(tensors, teachers=()) -> dict[str, torch.Tensor]:
    reader = tensors if hasattr(tensors, "read") else MemoryTensors(tensors)
    plan, unknown = rename(reader.keys(), teachers)
    assert not unknown
    ours = RenamedTensors(reader, plan)
    state = {name: ours.read(name) for name in ours}
    assert all(tuple(state[n].shape) == ours.shape(n) and state[n].dtype == ours.dtype(n) for n in ours)
    return state


def assert_same(state: dict, expected: dict) -> None:
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(family):
    state = model(family).state_dict()
    public = public_names(state)
    assert all(name.startswith("radio_model.") for name in public)
    assert any("model.inner." in name for name in public) == bool(FAMILIES[family].get("use_swiglu_ffn"))
    assert_same(read_back(public), state)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_that_are_ours_stay(family):
    state = model(family).state_dict()
    plan, unknown = rename(state)
    assert not unknown and plan == {name: Source(name) for name in state}


def to_hub(name: str) -> str:
    """The torch.hub name of a public one."""
    for pattern, new in (
        (r"radio_model\.model\.", "base_model."),
        (r"radio_model\.adaptors\.siglip2-g\.head_mlp\.", "_heads.1."),
        (r"radio_model\.adaptors\.siglip2-g\.feat_mlp\.", "_feature_projections.1."),
        (r"radio_model\.adaptors\.clip\.head_mlp\.", "_heads.clip."),
        (r"radio_model\.adaptors\.clip\.feat_mlp\.", "_feature_projections.0."),
        (r"radio_model\.feature_normalizer\.", "_feature_normalizer."),
        (r"radio_model\.inter_feature_normalizer\.", "_intermediate_feature_normalizer."),
        (r"radio_model\.", ""),
    ):
        name = re.sub(f"^{pattern}", new, name)
    return name.replace("grandma", "gamma")


@pytest.mark.parametrize("family", FAMILIES)
def test_hub_names(family):
    state = model(family).state_dict()
    hub = {to_hub(name): tensor for name, tensor in public_names(state).items()}
    assert not any("radio_model" in name for name in hub)
    assert_same(read_back(hub, TEACHERS), state)


@pytest.mark.parametrize("options", [{}, {"use_swiglu_ffn": True, "video_temporal_patch_size": 2}])
def test_what_transformers_writes(tmp_path, options):
    torch.manual_seed(0)
    native = RadioModel(RadioConfig(**BASE, **options))
    with torch.no_grad():
        [parameter.normal_() for parameter in native.parameters()]
    native.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.kind == "native"
    assert "radio_model.model.blocks.0.layer_scale1.lambda1" in checkpoint.tensors
    assert_same(read_back(checkpoint.tensors), native.state_dict())


@pytest.mark.parametrize("family, kind", [("plain", "native"), ("all", "ours")])
def test_what_our_own_model_writes(tmp_path, family, kind):
    ours = model(family)
    ours.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.kind == kind
    assert_same(read_back(checkpoint.tensors), ours.state_dict())


def test_fused_weights_split_in_the_right_order():
    rows = torch.arange(6.0)[:, None].expand(6, 4).contiguous()
    hub = {"base_model.blocks.3.attn.qkv.weight": rows, "base_model.inner.blocks.1.mlp.w12.bias": rows[:, 0]}
    state = read_back(hub)
    for k, x in enumerate("qkv"):
        assert state[f"encoder.layer.3.attention.{x}_proj.weight"][:, 0].tolist() == [2 * k, 2 * k + 1]
    assert state["encoder.layer.1.mlp.gate_proj.bias"].tolist() == [0, 1, 2]
    assert state["encoder.layer.1.mlp.up_proj.bias"].tolist() == [3, 4, 5]
    reader = MemoryTensors({"base_model.blocks.0.attn.qkv.weight": rows})
    ours = RenamedTensors(reader, rename(reader.keys())[0])
    value = "encoder.layer.0.attention.v_proj.weight"
    assert ours.read(value, (1, 2))[:, 0].tolist() == [5]
    assert ours.source(value) == Source("base_model.blocks.0.attn.qkv.weight", (2, 3))


def test_fused_weight_that_does_not_divide():
    reader = MemoryTensors({"base_model.blocks.0.attn.qkv.weight": torch.ones(7, 4)})
    with pytest.raises(RadioCheckpointError, match=r"qkv.weight' of shape \[7, 4\] does not divide into 3"):
        RenamedTensors(reader, rename(reader.keys())[0])


@pytest.mark.parametrize("pair", [
    ("radio_model.model.blocks.0.ls1.gamma", "radio_model.model.blocks.0.ls1.grandma"),
    ("radio_model.model.norm.weight", "base_model.norm.weight"),
    ("base_model.blocks.0.attn.qkv.bias", "encoder.layer.0.attention.k_proj.bias"),
    ("_heads.0.fc1.weight", "_heads.clip.fc1.weight"),
])  # fmt: skip
def test_two_names_of_one_weight(pair):
    with pytest.raises(RadioCheckpointError, match=f"'{re.escape(pair[0])}' and '{re.escape(pair[1])}' are both"):
        rename(pair, TEACHERS)


def test_hub_heads_are_numbered_by_teacher():
    keys = ["_heads.3.final.2.bias", "_feature_projections.1.blocks.0.ls2.gamma"]
    plan, unknown = rename(keys, TEACHERS)
    assert not unknown and plan == {
        "adaptors.dino_v3_7b.head_mlp.final.2.bias": Source(keys[0]),
        "adaptors.siglip2-g.feat_mlp.blocks.0.layer_scale2.lambda1": Source(keys[1]),
    }
    keys = ["_heads.4.fc1.bias", "_heads.sam.fc1.bias"]
    assert rename(keys, TEACHERS) == ({}, keys)
    assert rename(["_heads.0.fc1.bias"])[1] == ["_heads.0.fc1.bias"]  # a number, and nobody says whose


def test_second_head_of_a_teacher_is_left_out_with_a_reason():
    keys = ["_heads.0.fc1.bias", "_heads.2.fc1.bias"]
    plan, unknown = rename(keys, TEACHERS)
    assert list(plan) == ["adaptors.clip.head_mlp.fc1.bias"] and not unknown
    assert list(left_out(keys, TEACHERS)) == ["_heads.2.fc1.bias"]


LEFT = [
    "radio_model.model.reg_token", "base_model.reg_token", "base_model.cls_token", "base_model.pos_embed",
    "base_model.head.weight", "radio_model.model.fc_norm.bias", "base_model.inner.mask_token",
    "base_model.inner.register_tokens", "base_model.inner.cls_token", "optimizer.state.exp_avg", "_loss_fns.0.weight",
]  # fmt: skip


def test_left_out_names_have_reasons():
    plan, unknown = rename(LEFT)
    assert not plan and not unknown
    assert set(left_out(LEFT)) == set(LEFT) and all(left_out(LEFT).values())
    for pattern, _ in LEFT_OUT:
        assert any(re.fullmatch(pattern, name) for name in LEFT), f"no example of {pattern}"


UNKNOWN = [
    "base_model.blocks.0.attn.q_norm.weight", "base_model.blocks.0.attn.qkv.weights",
    "base_model.patch_embed.proj.weight", "radio_model.model.norm_pre.weight",
    "radio_model.adaptors.clip.text_mlp.fc1.weight", "_heads.0.fc9.weight",
    "radio_model.adaptors.clip.head_mlp.blocks.0.attn.rel_pos", "something.else", "weight", "xbase_model.norm.weight",
    "base_model.blocks.x.norm1.weight", "radio_model.model.model.norm.weight", "encoder.layer.0.mlp.fc3.weight",
    "radio_model.model.blocks.0.ls3.gamma", "radio_model.input_conditioner.norm_median", "base_model.norm",
]  # fmt: skip


def test_everything_else_is_unknown():
    plan, unknown = rename(UNKNOWN, TEACHERS)
    assert unknown == UNKNOWN and not plan and not left_out(UNKNOWN, TEACHERS)


def test_the_way_back_refuses_names_it_does_not_know():
    with pytest.raises(ValueError, match="'encoder.layer.0.attention.s_proj.weight' has no public name"):
        public_names({"encoder.layer.0.attention.s_proj.weight": torch.ones(1)})
