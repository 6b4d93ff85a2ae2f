"""Heads by name: what each fills in, that explicit keys win, and the arithmetic against plain layers."""

import pytest
import torch
import torch.nn.functional as F

from projectors.components import build_projector, default_config, projector_names
from projectors.mlp_head import HEADS, MLPHead, head_defaults

WITH_HEADS = [name for name in projector_names() if "head" in default_config({"type": name}, 8, 16)]


def slow_head(head: MLPHead, x: torch.Tensor, name: str) -> torch.Tensor:
    """The published formulas, written out."""
    if name == "nemotron":
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * head.layer_norm.weight
        return (x @ head.linear_1.weight.T).clamp(min=0) ** 2 @ head.linear_2.weight.T
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    x = (x * head.layer_norm.weight + head.layer_norm.bias) @ head.linear_1.weight.T + head.linear_1.bias
    if name == "linear":
        return x
    x = x * 0.5 * (1 + (x / 2**0.5).erf())
    return x @ head.linear_2.weight.T + head.linear_2.bias


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_the_published_formulas(name):
    torch.manual_seed(0)
    head = MLPHead(head_defaults(name, 16), 8, 16)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(9, 8) * 20
    torch.testing.assert_close(head(x), slow_head(head, x, name), rtol=1e-4, atol=1e-4)
    hidden = {"nemotron": 64, "llava": 16, "linear": None}[name]
    assert head_defaults(name, 16)["hidden_size"] == hidden


@pytest.mark.parametrize("projector", WITH_HEADS)
@pytest.mark.parametrize("head", HEADS)
def test_every_projector_with_a_head_takes_each(projector, head):
    config = default_config({"type": projector, "head": head}, 8, 16)
    assert {key: config[key] for key in head_defaults(head, 16)} == head_defaults(head, 16)
    built, grid = build_projector(config, 8, 16), (12, 12)
    assert built(torch.randn(144, 8), [grid]).shape[1] == 16
    assert (built.linear_1.bias is None) == (head == "nemotron")


def test_explicit_keys_win_and_old_configs_stay_what_they_were():
    config = default_config({"head": "llava", "hidden_size": 48, "bias": False}, 8, 16)
    assert (config["norm"], config["hidden_size"], config["bias"]) == ("layernorm", 48, False)
    old = {
        "type": "pixel_shuffle", "downsample": 2, "ps_version": "v1", "odd_grids": "reject", "norm": "layernorm",
        "activation": "gelu", "hidden_size": 32, "bias": True, "eps": 1e-5,
    }  # fmt: skip
    assert default_config(old, 8, 16) == old
    names = {name.rsplit(".", 1)[0] for name, _ in build_projector(old, 8, 16).named_parameters()}
    assert names == {"layer_norm", "linear_1", "linear_2"}
    assert default_config(None, 8, 16)["head"] == "nemotron"


def test_the_norm_is_optional():
    config = default_config({"type": "linear", "norm": None}, 8, 16)
    projector, x = build_projector(config, 8, 16), torch.randn(4, 8)
    assert set(dict(projector.named_parameters())) == {"linear_1.weight", "linear_1.bias"}
    torch.testing.assert_close(projector(x, [(2, 2)]), F.linear(x, projector.linear_1.weight, projector.linear_1.bias))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "deep"}, r"\['head'\] is 'deep'; known: linear, llava, nemotron"),
        ({"hidden_size": 0}, r"\['hidden_size'\]"),
        ({"hidden_size": None}, r"\['activation'\] is 'relu2'"),
        ({"head": "linear", "hidden_size": 32}, r"\['activation'\] is None; known: gelu, relu2"),
        ({"norm": "batchnorm"}, "known: layernorm, rmsnorm, null"),
    ],
)
def test_impossible_heads_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        build_projector(default_config(change, 8, 16), 8, 16)


def test_norms_compute_in_float32():
    x = torch.randn(64, 32) * 100
    for norm in ("rmsnorm", "layernorm"):
        head = build_projector(default_config({"norm": norm}, 8, 16), 8, 16)
        exact = head.layer_norm(x)
        half = head.to(torch.bfloat16).layer_norm(x.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), exact, atol=0.03, rtol=0.02)
