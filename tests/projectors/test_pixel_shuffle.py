"""Pixel shuffle equals the public formula and the omni reference; odd grids are filled up as documented."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from projectors.blocks import shuffle_dense, shuffle_index, shuffle_packed
from projectors.components import build_projector, get_projector, grid_multiple, num_tokens

FIXTURE = Path(__file__).parents[1] / "fixtures/projector_omni/features.safetensors"
SHUFFLE = get_projector("pixel_shuffle").defaults(8, 16)


def reference_shuffle(x: torch.Tensor, scale: float, version: str) -> torch.Tensor:
    """The public formula, step by step: (N, W, H, C) -> (N, W*s, H*s, C/s^2), transposed once more for v2."""
    n, w, h, c = x.shape
    x = x.view(n, w, int(h * scale), int(c / scale)).permute(0, 2, 1, 3).contiguous()
    x = x.view(n, int(h * scale), int(w * scale), int(c / scale**2))
    return x.permute(0, 2, 1, 3).contiguous() if version == "v2" else x


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (1, 5), (4, 2)])
@pytest.mark.parametrize("downsample", [1, 2, 3, 4])
def test_pixel_shuffle_is_the_public_formula(version, grid, downsample):
    h, w = (side * downsample for side in grid)
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


def slow_shuffle(x: torch.Tensor, grid: tuple[int, int], s: int, version: str, padding: str) -> torch.Tensor:
    """One token after the other, patch by patch: `(h*w, C) -> (tokens, s^2 * C)`."""
    h, w = grid
    places = [(row, col) for row in range(0, h, s) for col in range(0, w, s)]
    if version == "v1":
        places.sort(key=lambda place: place[::-1])
    tokens = []
    for top, left in places:
        channels = []
        for row in range(top, top + s):
            for col in range(left, left + s):
                inside = row < h and col < w
                patch = x[min(row, h - 1) * w + min(col, w - 1)]
                channels.append(patch if inside or padding == "repeat" else torch.zeros_like(patch))
        tokens.append(torch.cat(channels))
    return torch.stack(tokens)


@pytest.mark.parametrize("padding", ["repeat", "zero"])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("downsample", [2, 3, 4])
def test_any_grids_equal_the_slow_twin(downsample, version, padding):
    grids = [(6, 4), (5, 7), (1, 9), (9, 1), (1, 1), (12, 12), (5, 7)]
    parts = [torch.randn(h * w, 3) + 5 for h, w in grids]
    found = shuffle_packed(torch.cat(parts), grids, downsample, version, padding)
    want = [slow_shuffle(part, grid, downsample, version, padding) for part, grid in zip(parts, grids)]
    assert torch.equal(found, torch.cat(want))
    assert [len(tokens) for tokens in want] == [
        num_tokens({**SHUFFLE, "downsample": downsample, "odd_grids": "pad"}, *grid) for grid in grids
    ]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("downsample", [2, 3, 4])
def test_whole_projector_with_odd_grids(downsample, version):
    """Packed and one by one, forward and backward, for every r."""
    config = {**SHUFFLE, "downsample": downsample, "ps_version": version, "odd_grids": "pad"}
    assert grid_multiple(config) == 1 and grid_multiple({**config, "odd_grids": "reject"}) == downsample
    torch.manual_seed(0)
    projector, grids = build_projector(config, 8, 16), [(5, 7), (4, 12), (1, 6)]
    features = torch.randn(89, 8, requires_grad=True)
    out = projector(features, grids)
    parts = features.split([35, 48, 6])
    alone = torch.cat([projector(part, [grid]) for part, grid in zip(parts, grids)])
    torch.testing.assert_close(out, alone)
    assert len(out) == sum(num_tokens(config, *grid) for grid in grids)
    out.square().sum().backward()
    assert (features.grad.abs().amax(-1) > 0).all()


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
