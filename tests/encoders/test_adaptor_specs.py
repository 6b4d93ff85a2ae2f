"""Heads read off the shapes of weights: what the fixtures' configs say, and an error for all that cannot be right."""

from types import SimpleNamespace

import pytest
import torch

from encoders.adaptor_specs import adaptor_specs, held_adaptors, match_names
from encoders.adaptors import TeacherAdaptor
from encoders.errors import RadioCheckpointError
from tests.helpers.radio_heads import load_case

V4 = ["siglip2-g", "dino_v3_7b", "sam3"]


def infer(weights, **options):
    return adaptor_specs(weights, **{"args": {"teachers": [{"name": "t"}]}, "source": "model.pth.tar", **options})


def weights_of(summary: str = "v2", feature: str = "v2", factor: int = 1, name: str = "t", **sizes) -> dict:
    """The named weights of one adaptor, as a checkpoint holds them."""
    sizes = {"input_dim": 32, "hidden_dim": 24, "num_inner": 2, **sizes}
    spec = {"summary": {"version": summary, "output_dim": 10, **sizes},
            "feature": {"version": feature, "output_dim": 7 * factor**2, **sizes}}  # fmt: skip
    return {f"adaptors.{name}.{key}": value for key, value in TeacherAdaptor(spec).state_dict().items()}


@pytest.mark.parametrize("case", ["c_adaptors", "c_adaptor_attn", "f_feature_normalizer"])
def test_fixture_configs(case):
    """With and without `adaptor_configs`: everything in it can be read off the weights and the arguments."""
    config, weights, _ = load_case(case)
    with_config = adaptor_specs(weights, args=config["hf_args"], adaptor_configs=config["adaptor_configs"])
    assert list(with_config) == held_adaptors(weights) and set(with_config) == set(config["adaptor_names"])
    for name, spec in with_config.items():
        said = config["adaptor_configs"][name]
        assert spec["head_idx"] == said["head_idx"]
        for half in ("summary", "feature"):
            assert {k: spec[half][k] for k in said[half] if k != "upsample_rank"} == {
                k: v for k, v in said[half].items() if k != "upsample_rank"
            }
        assert spec["summary"]["version"] == "v2"
        assert spec["feature"]["version"] == ("attn" if case == "c_adaptor_attn" else "v2")
    teachers = [dict(teacher) for teacher in config["hf_args"]["teachers"]]
    if case == "c_adaptors":
        teachers[1]["fd_upsample_factor"] = 2
    args = SimpleNamespace(**{**config["hf_args"], "teachers": teachers})
    assert adaptor_specs({k: tuple(v.shape) for k, v in weights.items()}, args=args) == with_config


@pytest.mark.parametrize("summary", ["v1", "v2"])
@pytest.mark.parametrize("feature", ["v1", "v2", "attn"])
@pytest.mark.parametrize("num_inner", [0, 1, 3])
def test_a_head_comes_back(summary, feature, num_inner):
    """Any make and depth: the module of the inferred spec takes exactly the weights it was inferred from."""
    weights = weights_of(summary, feature, factor=2, num_inner=num_inner)
    args = {"teachers": [{"name": "other"}, {"name": "t", "fd_upsample_factor": 2}]}
    spec = infer(weights, args=args)["t"]
    assert spec["head_idx"] == 1 and spec["feature"]["upsample_factor"] == 2
    for half, version in (("summary", summary), ("feature", feature)):
        assert (spec[half]["version"], spec[half]["num_inner"]) == (version, num_inner)
    adaptor = TeacherAdaptor(spec)
    adaptor.load_state_dict({k.removeprefix("adaptors.t."): v for k, v in weights.items()}, strict=True)
    assert (adaptor.summary_dim, adaptor.feature_dim) == (10, 7)


def test_pre_norm_is_seen():
    weights = weights_of(pre_norm=True)
    assert infer(weights)["t"]["summary"]["pre_norm"] is True
    assert infer(weights_of())["t"]["summary"]["pre_norm"] is False


def test_head_idx():
    teachers = [{"name": "a"}, {"name": "b", "token_slot": 5}, {"name": "c"}]
    weights = {**weights_of(name="a"), **weights_of(name="b"), **weights_of(name="c")}

    def slots(**options):
        return [spec["head_idx"] for spec in infer(weights, **options).values()]

    assert slots(args={"teachers": teachers}) == [0, 5, 2]
    assert slots(args={"teachers": teachers, "cls_token_per_teacher": False}) == [0, 0, 0]
    configs = {"a": {"head_idx": 2}, "b": {"head_idx": 1}, "c": {"head_idx": 0}}
    assert slots(args=None, adaptor_configs=configs) == [2, 1, 0]
    with pytest.raises(RadioCheckpointError, match="'a' of model.pth.tar.*which cls token"):
        infer(weights, args=None)


def test_only_the_named():
    weights = {**weights_of(name="t"), **weights_of(name="u"), "encoder.layer.0.norm1.weight": torch.ones(3)}
    assert held_adaptors(weights) == ["t", "u"]
    assert list(infer(weights, names=["t"])) == ["t"]
    assert infer(weights, names=[]) == {}
    with pytest.raises(RadioCheckpointError, match="'x' of model.pth.tar; it holds t, u"):
        infer(weights, names=["x"])


def without(weights: dict, *parts: str) -> dict:
    return {key: value for key, value in weights.items() if not any(part in key for part in parts)}


@pytest.mark.parametrize(
    "weights, message",
    [
        (without(weights_of(), "feat_mlp"), "'t' of model.pth.tar has no feature head"),
        (without(weights_of(), "head_mlp"), "'t' of model.pth.tar has no summary head"),
        (without(weights_of(), "feat_mlp.final"), "feature head.*no known version.*feat_mlp.final.2.weight"),
        (without(weights_of(), "feat_mlp.fc1.weight"), "feat_mlp.fc1.weight should be a matrix, it is absent"),
        (without(weights_of(), "head_mlp.blocks.0.0.bias"), "head_mlp.blocks.0.0.bias is missing"),
        (without(weights_of(), "bias"), "bias is missing.*and [0-9]+ more"),
        (without(weights_of(), "head_mlp.blocks.0"), "head_mlp.blocks.1.0.weight has no place"),
        (without(weights_of(feature="attn"), "layer_scale"), "layer_scale1.lambda1 is missing"),
        ({**weights_of(), "adaptors.t.feat_mlp.extra.weight": torch.ones(2)}, "extra.weight has no place"),
        ({**weights_of(), "adaptors.t.head_mlp.final.0.weight": torch.ones(9)}, r"is \(9,\) where \(24,\)"),
        (weights_of(name="a.b"), "cannot have this name"),
        (weights_of(name="keys"), "cannot have this name"),
        ({k: v[..., :24] if "feat_mlp.mlp.fc1.weight" in k else v for k, v in weights_of(feature="attn").items()},
         "24 wide, not a multiple of 16"),
    ],
)  # fmt: skip
def test_heads_that_are_not_whole(weights, message):
    with pytest.raises(RadioCheckpointError, match=message):
        infer(weights, args={"teachers": [{"name": name} for name in held_adaptors(weights)]})


def args_with(teacher: dict | None = None, **options) -> dict:
    return {"teachers": [{"name": "t", **(teacher or {})}], **options}


@pytest.mark.parametrize(
    "args, message",
    [
        (args_with(mlp_version="v1"), "summary head.*`args.mlp_version` is 'v1'.*version 'v2'"),
        (args_with(mlp_version="v2"), "feature head.*`args.mlp_version` is 'v2'.*version 'attn'"),
        (args_with(mlp_version="v2", spatial_mlp_version="v1"), "feature head.*spatial_mlp_version` is 'v1'.*'attn'"),
        (args_with({"spatial_mlp_version": "v2"}, spatial_mlp_version="attn"), "its teacher's spatial.*'v2'.*'attn'"),
        (args_with({"mlp_version": "v1"}, mlp_version="v2"), "its teacher's mlp_version is 'v1'.*'v2'"),
    ],
)
def test_versions_in_conflict(args, message):
    with pytest.raises(RadioCheckpointError, match=message):
        infer(weights_of(feature="attn"), args=args)


@pytest.mark.parametrize(
    "args",
    [
        args_with(mlp_version="v2", spatial_mlp_version="attn"),
        args_with({"spatial_mlp_version": "attn"}, mlp_version="v2"),
        args_with({"mlp_version": "v2"}, mlp_version="v1", spatial_mlp_version="attn"),
        args_with({"spatial_mlp_version": "attn", "mlp_version": "v2"}, mlp_version="v1", spatial_mlp_version="v1"),
        args_with(),
    ],
)
def test_versions_in_agreement(args):
    assert infer(weights_of(feature="attn"), args=args)["t"]["feature"]["version"] == "attn"


def test_config_in_conflict():
    def config(half, **options):
        return {"adaptor_configs": {"t": {"head_idx": 0, half: options}}}

    with pytest.raises(RadioCheckpointError, match="summary head.*hidden_dim 23, its weights say 24"):
        infer(weights_of(), **config("summary", hidden_dim=23))
    with pytest.raises(RadioCheckpointError, match="feature head.*num_inner 0, its weights say 2"):
        infer(weights_of(), **config("feature", num_inner=0))
    with pytest.raises(RadioCheckpointError, match="upsample_factor 2.*fd_upsample_factor 3"):
        infer(weights_of(), args=args_with({"fd_upsample_factor": 3}), **config("feature", upsample_factor=2))
    with pytest.raises(RadioCheckpointError, match="7 outputs.*upsampled by 2"):
        infer(weights_of(), **config("feature", upsample_factor=2))


@pytest.mark.parametrize(
    "asked, held, found",
    [
        ("siglip2-g", V4, ["siglip2-g"]),
        (["dino_v3", "siglip2-g-384"], V4, ["dino_v3_7b", "siglip2-g"]),
        (["SigLIP2_g", "siglip2-g"], V4, ["siglip2-g"]),
        (["dinov3", "sam-3"], V4, ["dino_v3_7b", "sam3"]),
        (["dino", "siglip2"], V4, ["dino_v3_7b", "siglip2-g"]),
        ("siglip2-g", ["siglip2-g-384"], ["siglip2-g-384"]),
        ("dfn5b-clip", ["clip", "siglip"], ["clip"]),
        ("clip", ["clip", "clip-b"], ["clip"]),
        ([], V4, []),
    ],
)
def test_match_names(asked, held, found):
    assert match_names(asked, held) == found


@pytest.mark.parametrize(
    "asked, held, message",
    [
        ("clip", V4, "no adaptor 'clip' in radio.safetensors; it holds siglip2-g, dino_v3_7b, sam3"),
        ("siglip", V4, "no adaptor 'siglip'"),  # another teacher than siglip2
        ("sam", V4, "no adaptor 'sam'"),  # another teacher than sam3
        ("", V4, "no adaptor ''"),
        ("dino", ["dino_v2", "dino_v3_7b"], "'dino' may be any of dino_v2, dino_v3_7b"),
        ("Sam3", ["SAM3", "sAM3"], "may be any of SAM3, sAM3"),
        ("clip", [], "radio.safetensors holds no teacher heads.*pth.tar"),
    ],
)
def test_names_that_match_nothing_or_too_much(asked, held, message):
    with pytest.raises(RadioCheckpointError, match=message):
        match_names(asked, held, "radio.safetensors")
