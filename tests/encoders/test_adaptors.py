"""Teacher heads against outputs of the reference implementation, against plain twins, and packed against one by one."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from encoders.adaptor_specs import adaptor_specs
from encoders.adaptors import HeadV1, HeadV2, TeacherAdaptor, build_adaptors, shuffle_patches
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel
from tests.helpers.radio_heads import cls_token, grid_of, load_case

CASES = ("c_adaptors", "c_adaptor_attn", "f_feature_normalizer")
GRIDS = [(4, 4), (3, 5), (4, 4), (6, 2), (1, 1)]


def load(case: str):
    config, weights, outputs = load_case(case)
    specs = adaptor_specs(weights, args=config["hf_args"], adaptor_configs=config["adaptor_configs"])
    adaptors = {}
    for name, spec in specs.items():
        adaptors[name] = TeacherAdaptor(spec).eval()
        prefix = f"adaptors.{name}."
        mine = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        adaptors[name].load_state_dict(mine, strict=True)
    return config, adaptors, outputs


def make(feature: str = "v2", factor: int = 1, **options) -> TeacherAdaptor:
    torch.manual_seed(0)
    sizes = {"input_dim": 32, "hidden_dim": 24, "num_inner": 1}
    extra = {"num_blocks": 2, "num_heads": 4} if feature == "attn" else {}
    spec = {
        "head_idx": 0,
        "summary": {"version": "v2", "output_dim": 10, **sizes},
        "feature": {"version": feature, "output_dim": 6 * factor**2, **sizes, **extra, "upsample_factor": factor},
    }
    adaptor = TeacherAdaptor(spec, **options).eval()
    for parameter in adaptor.parameters():  # norms and layer scales other than one
        nn.init.normal_(parameter, std=0.3)
    return adaptor


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@pytest.mark.parametrize("case", CASES)
def test_reference_outputs(case):
    config, adaptors, outputs = load(case)
    assert sorted(adaptors) == sorted(config["adaptor_names"])
    for picture in config["input_keys"]:
        for name, adaptor in adaptors.items():
            summary = cls_token(config, outputs, picture, adaptor.head_idx)
            features, grid = outputs[f"{picture}.backbone.features"], grid_of(config, picture)
            with torch.no_grad():
                result = adaptor(summary, features, grid)
                nchw = adaptor(summary, features, grid, feature_fmt="NCHW").features
            assert worst(result.summary, outputs[f"{picture}.{name}.summary"]) < 5e-5
            assert worst(result.features, outputs[f"{picture}.{name}.features"]) < 5e-5
            assert worst(nchw.flatten(2).transpose(1, 2), result.features) == 0
            if f"{picture}.{name}.features_nchw" in outputs:
                assert worst(nchw, outputs[f"{picture}.{name}.features_nchw"]) < 5e-5


def test_each_summary_head_reads_its_own_token():
    config, adaptors, outputs = load("c_adaptors")
    assert {name: adaptor.head_idx for name, adaptor in adaptors.items()} == {"siglip2-g": 0, "dino_v3_7b": 1}
    wrong = cls_token(config, outputs, "photo", 0)
    with torch.no_grad():
        result = adaptors["dino_v3_7b"](wrong, outputs["photo.backbone.features"], grid_of(config, "photo"))
    assert worst(result.summary, outputs["photo.dino_v3_7b.summary"]) > 0.1


def test_attention_head_needs_its_blocks():
    config, adaptors, outputs = load("c_adaptor_attn")
    adaptor = adaptors["siglip2-g"]
    adaptor.feat_mlp.blocks = nn.ModuleList()
    with torch.no_grad():
        result = adaptor(cls_token(config, outputs, "photo", 0), outputs["photo.backbone.features"], (6, 8))
    assert worst(result.features, outputs["photo.siglip2-g.features"]) > 0.1


def test_v1_head_is_its_definition():
    torch.manual_seed(1)
    head, x = HeadV1(8, 12, 5, num_inner=2), torch.randn(3, 4, 8)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    w = head.state_dict()
    y = F.relu(F.layer_norm(x @ w["fc1.weight"].T + w["fc1.bias"], (12,), w["norm.weight"], w["norm.bias"], 1e-5))
    for i in (0, 3):
        y = y @ w[f"inner.{i}.weight"].T + w[f"inner.{i}.bias"]
        y = F.relu(F.layer_norm(y, (12,), w[f"inner.{i + 1}.weight"], w[f"inner.{i + 1}.bias"], 1e-5))
    assert worst(head(x), y @ w["fc2.weight"].T + w["fc2.bias"]) < 1e-5


def test_v2_head_with_pre_norm_is_its_definition():
    torch.manual_seed(1)
    head, x = HeadV2(8, 12, 5, num_inner=1, pre_norm=True), torch.randn(3, 4, 8)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    w = head.state_dict()

    def norm_gelu(x, name):
        return F.gelu(F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5))

    y = norm_gelu(x, "pre_norm.0") @ w["fc1.weight"].T + w["fc1.bias"]
    y = y + norm_gelu(y, "blocks.0.0") @ w["blocks.0.2.weight"].T + w["blocks.0.2.bias"]
    y = norm_gelu(y, "final.0") @ w["final.2.weight"].T + w["final.2.bias"]
    assert worst(head(x), y) < 1e-5


def test_shuffle_puts_every_sub_patch_in_its_place():
    h, w, u, c = 2, 3, 2, 4
    tokens = torch.randn(2, h * w, u * u * c)
    shuffled = shuffle_patches(tokens, (h, w), u).view(2, h * u, w * u, c)
    for row in range(h * u):
        for column in range(w * u):
            patch = tokens[:, (row // u) * w + column // u].view(2, u, u, c)
            assert torch.equal(shuffled[:, row, column], patch[:, row % u, column % u])


@pytest.mark.parametrize("grids", [GRIDS, [(2, 3), (3, 2)], [(4, 4)]], ids=["mixed", "equal_lengths", "one"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("version, factor", [("v1", 1), ("v2", 2), ("attn", 1), ("attn", 3)])
def test_packed_equals_one_by_one(version, factor, attention, grids):
    """Forward, and the gradient of inputs and weights."""
    adaptor = make(version, factor, attn_implementation=attention)
    lengths = [h * w for h, w in grids]
    summary = torch.randn(len(grids), 32, requires_grad=True)
    features = torch.randn(sum(lengths), 32, requires_grad=True)
    packed = adaptor.forward_packed(summary, features, grids)
    singles = [adaptor(s[None], f[None], grid) for s, f, grid in zip(summary, features.split(lengths), grids)]
    alone = torch.cat([single.features[0] for single in singles])
    assert worst(packed.features, alone) < 2e-5
    assert worst(packed.summary, torch.cat([single.summary for single in singles])) < 2e-5
    wrt, weight = [features, *adaptor.feat_mlp.parameters()], torch.randn_like(alone)
    for a, b in zip(
        torch.autograd.grad((packed.features * weight).sum(), wrt),
        torch.autograd.grad((alone * weight).sum(), wrt),
    ):
        assert worst(a, b) < 2e-5 * max(1, b.abs().max().item())


def test_attention_stays_within_a_picture():
    """The control: another second picture changes nothing in the first, another first patch does."""
    adaptor, grids = make("attn"), [(2, 3), (3, 3)]
    summary, features = torch.randn(2, 32), torch.randn(15, 32)
    with torch.no_grad():
        before = adaptor.forward_packed(summary, features, grids).features
        features[6:] = torch.randn(9, 32)
        after = adaptor.forward_packed(summary, features, grids).features
        features[0] = torch.randn(32)
        third = adaptor.forward_packed(summary, features, grids).features
    assert torch.equal(before[:6], after[:6]) and worst(before[6:], after[6:]) > 1e-2
    assert worst(after[1:6], third[1:6]) > 1e-3


def test_runs_in_its_own_dtype_and_answers_in_float32():
    adaptor = make("attn", 2)
    summary, features = torch.randn(1, 32), torch.randn(1, 6, 32)
    with torch.no_grad():
        full = adaptor(summary.double(), features.double(), (2, 3))
        half = copy.deepcopy(adaptor).to(torch.bfloat16)(summary, features, (2, 3))
    for a, b in zip(full, half):
        assert a.dtype == b.dtype == torch.float32
        assert 0 < worst(a, b) < 0.1 * a.std().item() + 0.1


def config_with(**changes) -> RadioEncoderConfig:
    sizes = {"version": "v2", "input_dim": 32, "hidden_dim": 24, "output_dim": 8, "num_inner": 0}
    spec = {"head_idx": 1, "summary": dict(sizes), "feature": {**sizes, "upsample_factor": 2}, **changes}
    return RadioEncoderConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=2, adaptors={"teacher-a": spec})


def test_build_adaptors():
    assert len(build_adaptors(RadioEncoderConfig(hidden_size=32, num_attention_heads=2))) == 0
    adaptor = build_adaptors(config_with())["teacher-a"]
    assert (adaptor.head_idx, adaptor.summary_dim, adaptor.feature_dim, adaptor.upsample_factor) == (1, 8, 2, 2)


SIZES = {"version": "v2", "input_dim": 32, "hidden_dim": 24, "output_dim": 8, "num_inner": 0}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"head_idx": 10}, "prefix token 10.*has 10"),
        ({"summary": {**SIZES, "input_dim": 48}}, "width 48.*`hidden_size` is 32"),
        ({"feature": {**SIZES, "version": "v3"}}, "'v3'.*v1, v2, attn"),
        ({"feature": {**SIZES, "upsample_factor": 3}}, "8 outputs.*upsampled by 3"),
        ({"feature": {**SIZES, "version": "attn", "num_heads": 5}}, "width 32.*5 heads"),
        ({"feature": {**SIZES, "version": "v1", "pre_norm": True}}, "'v1' has no `pre_norm`"),
        ({"summary": {**SIZES, "version": "attn"}}, "reads patches"),
    ],
)
def test_specs_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        build_adaptors(config_with(**changes))


def test_shapes_that_do_not_fit():
    adaptor = make()
    with pytest.raises(ValueError, match=r"\(B, 6, D\)"):
        adaptor(torch.zeros(1, 32), torch.zeros(1, 5, 32), (2, 3))
    with pytest.raises(ValueError, match="2 pictures of 7 patches"):
        adaptor.forward_packed(torch.zeros(2, 32), torch.zeros(8, 32), [(2, 3), (1, 1)])
    with pytest.raises(ValueError, match="NHWC"):
        adaptor(torch.zeros(1, 32), torch.zeros(1, 6, 32), (2, 3), feature_fmt="NHWC")


def model_with_heads():
    torch.manual_seed(0)
    sizes = {"input_dim": 32, "hidden_dim": 24, "output_dim": 8, "num_inner": 1}
    spec = {
        "head_idx": 1,
        "summary": {"version": "v1", **sizes},
        "feature": {"version": "attn", **sizes, "num_blocks": 2, "num_heads": 4, "upsample_factor": 2},
    }
    config = RadioEncoderConfig(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=2, max_img_size=64, adaptors={"teacher-a": spec}
    )
    model = RadioVisionModel(config)
    for parameter in model.adaptors.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_heads_of_a_model_come_back_from_disk(tmp_path):
    """Names of attention blocks are left alone although transformers renames such names in `radio` checkpoints."""
    model, pixels = model_with_heads(), torch.rand(2, 3, 32, 48)
    model.save_pretrained(tmp_path)
    again, info = RadioVisionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        before, after = model(pixels).adaptors["teacher-a"], again.eval()(pixels).adaptors["teacher-a"]
    assert torch.equal(before.summary, after.summary) and torch.equal(before.features, after.features)
    assert before.features.shape == (2, 4 * 6, 2)


def test_fresh_heads_of_a_model_are_initialised(tmp_path):
    """By the native rules: no head starts with the memory it was given, nor with unit layer scales of zero."""
    model = model_with_heads()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("adaptors")}, tmp_path / "model.safetensors")
    fresh = RadioVisionModel.from_pretrained(tmp_path)
    for name, parameter in fresh.adaptors.named_parameters():
        wanted = {"weight": 1.0 if "norm" in name or ".inner.1." in name else None, "bias": 0.0, "lambda1": 1.0}
        value = wanted[name.rsplit(".", 1)[1]] if ".final.0" not in name and ".blocks.0.0" not in name else None
        assert torch.isfinite(parameter).all() and parameter.abs().max() <= 1.0
        if value is not None:
            assert (parameter == value).all(), name


def test_gradient_checkpointing_reaches_the_heads():
    model, pixels = model_with_heads().train(), torch.rand(1, 3, 32, 32)
    parameters = list(model.adaptors.parameters())

    def gradients():
        output = model(pixels).adaptors["teacher-a"]
        return torch.autograd.grad(output.summary.sum() + output.features.square().sum(), parameters)

    plain = gradients()
    model.gradient_checkpointing_enable()
    assert all(block.gradient_checkpointing for block in model.adaptors["teacher-a"].feat_mlp.blocks)
    for a, b in zip(plain, gradients()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
