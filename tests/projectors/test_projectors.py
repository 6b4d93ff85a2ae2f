"""Every registered projector keeps its promises; pixel shuffle equals the public formula and the omni reference."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from projectors.components import (
    build_projector,
    get_projector,
    num_tokens,
    project,
    projector_names,
    static_source,
)
from projectors.pixel_shuffle import shuffle_dense, shuffle_index, shuffle_packed
from projectors.registry import register_projector

FIXTURE = Path(__file__).parents[1] / "fixtures/projector_omni/features.safetensors"
SHUFFLE = get_projector("pixel_shuffle").defaults(8, 16)


def reference_shuffle(x: torch.Tensor, scale: float, version: str) -> torch.Tensor:
    """The public formula, step by step: (N, W, H, C) -> (N, W*s, H*s, C/s^2), transposed once more for v2."""
    n, w, h, c = x.shape
    x = x.view(n, w, int(h * scale), int(c / scale)).permute(0, 2, 1, 3).contiguous()
    x = x.view(n, int(h * scale), int(w * scale), int(c / scale**2))
    return x.permute(0, 2, 1, 3).contiguous() if version == "v2" else x


@pytest.mark.parametrize("name", projector_names())
def test_registered_projectors_obey_their_own_count(name):
    config = get_projector(name).defaults(8, 16)
    projector = build_projector(config, 8, 16)
    grids = [(2, 4), (4, 4), (2, 2), (2, 4)]
    out = projector(torch.randn(sum(h * w for h, w in grids), 8), grids)
    assert out.shape == (sum(num_tokens(config, h, w) for h, w in grids), 16)
    out.sum().backward()
    assert all(p.grad is not None for p in projector.parameters())


@pytest.mark.parametrize("name", projector_names())
def test_packed_pictures_equal_single_pictures(name):
    torch.manual_seed(0)
    projector = build_projector(get_projector(name).defaults(8, 16), 8, 16)
    grids = [(2, 4), (4, 2), (6, 2)]
    parts = [torch.randn(h * w, 8) for h, w in grids]
    together = projector(torch.cat(parts), grids)
    alone = torch.cat([projector(part, [grid]) for part, grid in zip(parts, grids)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", projector_names())
def test_class_tokens_stand_before_the_patches_of_their_picture(name):
    torch.manual_seed(0)
    config = {**get_projector(name).defaults(8, 16), "summary_tokens": 3}
    projector, grids = build_projector(config, 8, 16, d_summary=4), [(2, 4), (4, 2), (6, 2)]
    features, summary = torch.randn(28, 8), torch.randn(3, 3, 4)
    tokens = project(projector, config, features, grids, summary)
    assert len(tokens) == sum(num_tokens(config, *grid) for grid in grids)
    plain = {key: value for key, value in config.items() if key != "summary_tokens"}
    alone = project(projector, plain, features, grids).split([num_tokens(plain, *grid) for grid in grids])
    start = 0
    for own, patches in zip(summary, alone):
        assert num_tokens(plain, 2, 2) + 3 == num_tokens(config, 2, 2)
        torch.testing.assert_close(tokens[start : start + 3], projector.summary_head(own))
        torch.testing.assert_close(tokens[start + 3 : start + 3 + len(patches)], patches)
        start += 3 + len(patches)
    tokens.sum().backward()
    assert all(p.grad is not None for p in projector.parameters())
    assert not hasattr(build_projector(plain, 8, 16), "summary_head")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("grid", [(4, 4), (2, 6), (8, 4)])
@pytest.mark.parametrize("downsample", [1, 2])
def test_pixel_shuffle_is_the_public_formula(version, grid, downsample):
    h, w = grid
    index = torch.arange(3 * h * w).view(3, h, w, 1) * torch.tensor([1, 1000])
    want = reference_shuffle(index, 1 / downsample, version).flatten(1, 2)
    torch.testing.assert_close(shuffle_dense(index, downsample, version), want)
    raster = torch.arange(h * w)
    assert torch.equal(raster[shuffle_index(h, w, downsample, version)], reference_index(h, w, downsample, version))


def reference_index(h, w, s, version):
    return reference_shuffle(torch.arange(h * w).view(1, h, w, 1), 1 / s, version).flatten()


def test_v1_is_the_transposed_grid_of_v2():
    index = torch.arange(24).view(1, 4, 6, 1)
    v1, v2 = (shuffle_dense(index, 2, version).view(-1, 4) for version in ("v1", "v2"))
    assert torch.equal(v1.view(3, 2, 4).transpose(0, 1).reshape(6, 4), v2)


def test_dense_shortcut_equals_the_index_path():
    x = torch.randn(2 * 24 + 8, 5)
    equal = shuffle_packed(x[:48], [(4, 6), (4, 6)], 2)
    mixed = shuffle_packed(x, [(4, 6), (4, 6), (2, 4)], 2)
    assert torch.equal(mixed[:12], equal)


def test_projected_features_equal_the_omni_reference():
    data = load_file(FIXTURE)
    config = {**SHUFFLE, "hidden_size": data["linear_1.weight"].shape[0]}
    projector = build_projector(config, data["vision_features"].shape[1], data["image_features"].shape[1])
    projector.load_state_dict({key: data[key] for key in projector.state_dict()})
    with torch.no_grad():
        out = projector(data["vision_features"], [tuple(row) for row in data["grids"].tolist()])
    torch.testing.assert_close(out, data["image_features"], atol=5e-5, rtol=1e-4)


def test_odd_grids_are_rejected_or_padded_as_documented():
    with pytest.raises(ValueError, match="3x4.*odd_grids"):
        num_tokens(SHUFFLE, 3, 4)
    with pytest.raises(ValueError, match="3x4"):
        build_projector(SHUFFLE, 8, 16)(torch.randn(12, 8), [(3, 4)])
    padded = {**SHUFFLE, "odd_grids": "pad"}
    assert num_tokens(padded, 3, 5) == 6
    x = torch.arange(15.0).view(15, 1)
    out = shuffle_packed(x, [(3, 5)], 2)
    assert out[0].tolist() == [0, 1, 5, 6]
    assert out[2].tolist() == [4, 4, 9, 9] and out[5].tolist() == [14, 14, 14, 14]
    assert build_projector(padded, 8, 16)(torch.randn(15, 8), [(3, 5)]).shape == (6, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample": 0}, "downsample"),
        ({"ps_version": "v3"}, "v1, v2"),
        ({"odd_grids": "crop"}, "reject, pad"),
        ({"norm": "batchnorm"}, "layernorm, rmsnorm"),
        ({"activation": "tanh"}, "gelu, relu2"),
    ],
)
def test_impossible_settings_name_the_known_ones(change, message):
    with pytest.raises(ValueError, match=message):
        build_projector({**SHUFFLE, **change}, 8, 16)


def test_registry_refuses_duplicates_and_lists_known_names():
    with pytest.raises(ValueError, match="registered twice"):

        @register_projector("mlp")
        class Other(torch.nn.Module):
            pass

    with pytest.raises(ValueError, match="known projectors: mlp, pixel_shuffle"):
        get_projector("resampler")


def test_norms_compute_in_float32():
    x = torch.randn(64, 32) * 100
    for norm in ("rmsnorm", "layernorm"):
        head = build_projector({**SHUFFLE, "norm": norm}, 8, 16)
        exact = head.layer_norm(x)
        half = head.to(torch.bfloat16).layer_norm(x.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), exact, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("name", projector_names())
def test_static_stand_in_imports_only_the_chosen_projector(name):
    text = static_source(name)
    compile(text, "components.py", "exec")
    assert get_projector(name).__name__ in text and "importlib" not in text and "pkgutil" not in text
