"""Folding of spectral norms against the reference's folded weights and against torch's own parametrisation."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from encoders.errors import RadioCheckpointError
from encoders.spectral import eps_of, fold, fold_part

CASE = Path(__file__).resolve().parents[1] / "fixtures" / "radio" / "g_spectral"
PREFIX = "parametrizations.weight"


def state(weight: torch.Tensor, parts: dict[str, dict] | None = None, root: str = "m.lin") -> dict[str, torch.Tensor]:
    """Stored tensors of one weight; `parts`: level such as "0" or "0.parts.1" -> fields."""
    stored = {f"{root}.{PREFIX}.original": weight}
    for level, fields in (parts or {}).items():
        stored |= {f"{root}.{PREFIX}.{level}.{name}": value for name, value in fields.items()}
    return stored


def fields(rows: int, columns: int, version: int | None = 2, scale: float = 0.7) -> dict[str, torch.Tensor]:
    u, v = (nn.functional.normalize(torch.randn(size), dim=0) for size in (rows, columns))
    found = {"scale": torch.full((1, 1), scale), "_u": u, "_v": v}
    return found if version is None else {**found, "_sn_version": torch.tensor(version)}


def plain(weight: torch.Tensor, f: dict, eps: float = 1e-6) -> torch.Tensor:
    """The slow twin, in float64."""
    w, u, v = weight.double().flatten(1), f["_u"].double(), f["_v"].double()
    s = f["scale"].double()[0, 0]
    s = torch.log1p(torch.exp(s)) + 0.05 if int(f.get("_sn_version", 1)) == 2 else s
    return (weight.double() * s / ((u[:, None] * w * v).sum() + eps)).to(weight.dtype)


@pytest.mark.parametrize("mode, iterations", [("fold_eval", 0), ("fold_hub", 1)])
def test_reference_weights(mode, iterations):
    stored, outputs = load_file(CASE / "weights.safetensors"), load_file(CASE / "outputs.safetensors")
    folded = fold(stored, iterations=iterations)
    expected = {k.removeprefix(mode + "."): v for k, v in outputs.items() if k.startswith(mode)}
    assert expected
    other = fold(stored, iterations=1 - iterations)
    for name, weight in expected.items():
        assert (folded.read(f"base_model.{name}") - weight).abs().max() <= 1e-6
        assert (other.read(f"base_model.{name}") - weight).abs().max() > 1e-3  # the modes do differ
    names = set(folded.keys())
    assert not any("parametrizations" in name for name in names)
    assert {"base_model.blocks.1.mlp.fc2.weight", "base_model.blocks.1.mlp.fc2.bias"} <= names
    assert len(folded.folded) == 8


def test_one_power_iteration_is_torchs():
    """`iterations=1` does what a training step of torch's spectral norm does, whose iteration the reference uses."""
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(5, 7, bias=False), eps=1e-12)
    norm = layer.parametrizations.weight[0]
    stored = {"scale": torch.ones(1, 1), "_u": norm._u.clone(), "_v": norm._v.clone()}
    original = layer.parametrizations.weight.original.detach().clone()
    layer.train()
    expected = layer.weight
    folded = fold_part(original, stored["scale"], stored["_u"], stored["_v"], version=1, eps=0.0, iterations=1)
    assert torch.allclose(folded, expected, atol=1e-6)


@pytest.mark.parametrize("version", [2, 1, None])
def test_versions_of_the_scale(version):
    torch.manual_seed(0)
    weight, f = torch.randn(6, 4), fields(6, 4, version)
    folded = fold(state(weight, {"0": f})).read("m.lin.weight")
    assert torch.allclose(folded, plain(weight, f), atol=1e-6)
    other = fields(6, 4, 2 if version != 2 else 1) | {k: f[k] for k in ("scale", "_u", "_v")}
    assert not torch.allclose(folded, plain(weight, other), atol=1e-3)


@pytest.mark.parametrize("present", [(0, 1, 2), (0, 1), (1,)])
@pytest.mark.parametrize("level", ["0", "1"])
def test_fused_weights_fold_by_part(present, level):
    """Parts without fields stay as they are; the level may stand behind another one."""
    torch.manual_seed(0)
    weight = torch.randn(12, 4)
    parts = {part: fields(4, 4, scale=0.3 + part) for part in present}
    folded = fold(state(weight, {f"{level}.parts.{part}": f for part, f in parts.items()}, root="a.blocks.0.attn.qkv"))
    chunks = [plain(w, parts[i]) if i in parts else w for i, w in enumerate(weight.chunk(3))]
    assert torch.allclose(folded.read("a.blocks.0.attn.qkv.weight"), torch.cat(chunks), atol=1e-6)
    for rows in ((0, 4), (4, 8), (8, 12), (2, 7), (5, 6), (3, 12)):
        read = folded.read("a.blocks.0.attn.qkv.weight", rows)
        assert torch.allclose(read, torch.cat(chunks)[slice(*rows)], atol=1e-6)
        assert read.untyped_storage().nbytes() == (rows[1] - rows[0]) * 16


def test_two_parts_of_a_gated_mlp():
    torch.manual_seed(0)
    weight = torch.randn(10, 4)
    parts = {part: fields(5, 4) for part in (0, 1)}
    folded = fold(state(weight, {f"0.parts.{part}": f for part, f in parts.items()}, root="inner.blocks.0.mlp.w12"))
    expected = torch.cat([plain(w, parts[i]) for i, w in enumerate(weight.chunk(2))])
    assert torch.allclose(folded.read("inner.blocks.0.mlp.w12.weight"), expected, atol=1e-6)


def test_vectors_and_kernels():
    torch.manual_seed(0)
    vector, scale = torch.randn(6), torch.tensor([[0.4]])
    folded = fold(state(vector, {"0": {"scale": scale, "_sn_version": torch.tensor(1)}}), eps=1e-3)
    assert torch.allclose(folded.read("m.lin.weight"), vector * 0.4 / (vector.norm() + 1e-3))
    kernel, f = torch.randn(6, 3, 2, 2), fields(6, 12)
    assert torch.allclose(fold(state(kernel, {"0": f})).read("m.lin.weight"), plain(kernel, f), atol=1e-6)


def test_of_a_row_of_scales_the_first_counts():
    torch.manual_seed(0)
    weight, f = torch.randn(6, 4), fields(6, 4)
    row = {**f, "scale": torch.tensor([[0.7, 9.0, 9.0]])}
    expected = fold(state(weight, {"0": f})).read("m.lin.weight")
    assert torch.equal(fold(state(weight, {"0": row})).read("m.lin.weight"), expected)


def test_eps_of_the_argument():
    assert eps_of(True) == eps_of(None) == eps_of(False) == 1e-6
    assert eps_of({}) == 1e-12 and eps_of({"eps": 1e-4}) == 1e-4
    torch.manual_seed(0)
    weight, f = torch.randn(6, 4), fields(6, 4)
    assert torch.allclose(fold(state(weight, {"0": f}), eps=0.5).read("m.lin.weight"), plain(weight, f, 0.5), atol=1e-6)


ROOTS = (
    "base_model.blocks.0.attn.proj", "_heads.0.fc1", "_feature_projections.clip.final.2",
    "radio_model.model.blocks.0.mlp.fc1",
)  # fmt: skip


@pytest.mark.parametrize("root", ROOTS)
def test_damp_alone_comes_off(root):
    weight = torch.randn(3, 2)
    stored = {f"{root}.{PREFIX}.original": weight, f"{root}.bias": torch.ones(3), "plain.weight": torch.ones(1)}
    folded = fold(stored)
    assert folded.keys() == [f"{root}.weight", f"{root}.bias", "plain.weight"] and folded.folded == []
    assert torch.equal(folded.read(f"{root}.weight"), weight) and folded.shape(f"{root}.weight") == (3, 2)
    assert torch.equal(folded.read(f"{root}.weight", (1, 2)), weight[1:2])


def test_half_precision_is_folded_in_float32_and_stays_half():
    torch.manual_seed(0)
    weight, f = torch.randn(64, 48), fields(64, 48)
    wide = fold(state(weight.bfloat16().float(), {"0": f})).read("m.lin.weight")
    half = fold(state(weight.bfloat16(), {"0": f})).read("m.lin.weight")
    assert half.dtype == torch.bfloat16 and torch.equal(half, wide.bfloat16())


W = torch.ones(6, 4)
BAD = {
    "no weight": ({f"m.lin.{PREFIX}.0.scale": torch.ones(1, 1)}, "'m.lin.weight' has a spectral norm, but no"),
    "no u": (state(W, {"0": {"scale": torch.ones(1, 1), "_v": torch.ones(4)}}), "of 'm.lin.weight' lacks _u"),
    "no scale": (state(W, {"0": {"_u": torch.ones(6), "_v": torch.ones(4)}}), "of 'm.lin.weight' lacks scale"),
    "u too short": (state(W, {"0": fields(5, 4)}), r"is for \[5\] x \[4\], its weight is \[6, 4\]"),
    "v too long": (state(W, {"0": fields(6, 5)}), r"is for \[6\] x \[5\], its weight is \[6, 4\]"),
    "part too many": (state(W, {"0.parts.3": fields(2, 4)}), r"\(part 3\) is for"),
    "parts that do not divide": (state(W, {"0.parts.0": fields(4, 4)}), r"\(part 0\) is for"),
    "parts that differ": (state(W, {"0.parts.0": fields(2, 4), "0.parts.1": fields(3, 4)}), r"\(part 1\) is for"),
    "whole and parts": (state(W, {"0": fields(6, 4), "0.parts.0": fields(2, 4)}), "as one and one in parts"),
    "scale of rows": (state(W, {"0": {**fields(6, 4), "scale": torch.ones(6, 1)}}), r"scale of .* has shape \[6, 1\]"),
    "unknown field": (state(W, {"0": {"lora_A": torch.ones(1)}}), "parametrisation that is not known"),
    "twice": ({**state(W), "m.lin.weight": W}, "are the same weight"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_whole_is_named(case):
    stored, message = BAD[case]
    with pytest.raises(RadioCheckpointError, match=message):
        fold(stored)


def test_unknown_version():
    with pytest.raises(RadioCheckpointError, match="'m.lin.weight' has version 3"):
        fold(state(W, {"0": fields(6, 4, version=3)})).read("m.lin.weight")
