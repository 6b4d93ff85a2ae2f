"""Spatial to channel equals VILA's definition: layout, zero padding, order of tokens, layers."""

import pytest
import torch
from torch import nn

from projectors.components import build_projector, default_config, num_tokens


def vila_blocks(x: torch.Tensor, grid: tuple[int, int], s: int, transposed: bool) -> torch.Tensor:
    """`(h*w, C) -> (tokens, s*s*C)` by two foldings, as published: columns into channels, then rows; the result stands
    transposed and is turned back in the "fix" versions."""
    h, w = grid
    maps = nn.functional.pad(x.view(h, w, -1), (0, 0, 0, -w % s, 0, -h % s))
    h, w, c = maps.shape
    maps = maps.reshape(h, w // s, s * c).transpose(0, 1)
    maps = maps.reshape(w // s, h // s, s * s * c)
    return (maps if transposed else maps.transpose(0, 1)).flatten(0, 1)


def vila_layers(projector: nn.Module, s: int, c: int, d: int) -> nn.Sequential:
    """The published stack of plain layers, holding our weights."""
    head = [nn.LayerNorm(4 * c), nn.Linear(4 * c, d), nn.GELU(), nn.Linear(d, d)]
    if s == 3:
        head[:2] = [nn.LayerNorm(9 * c), nn.Linear(9 * c, 3 * c), nn.GELU(), nn.LayerNorm(3 * c), nn.Linear(3 * c, d)]
    ours = [projector.funnel_norm, projector.funnel] * (s == 3)
    ours += [projector.layer_norm, projector.linear_1, projector.linear_2]
    for layer, own in zip([layer for layer in head if not isinstance(layer, nn.GELU)], ours, strict=True):
        layer.load_state_dict(own.state_dict())
    return nn.Sequential(*head).requires_grad_(False)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("s", [2, 3])
def test_equals_the_published_definition(s, version):
    """27 x 27 patches and other grids that 2 or 3 do not divide among them."""
    torch.manual_seed(0)
    config = default_config({"type": "spatial_to_channel", "downsample": s, "ps_version": version}, 8, 16)
    projector, grids = build_projector(config, 8, 16), [(6, 6), (4, 9), (5, 7), (1, 8), (1, 1), (27, 27)]
    for parameter in projector.parameters():
        nn.init.normal_(parameter, std=0.3)
    parts = [torch.randn(h * w, 8) for h, w in grids]
    layers = vila_layers(projector, s, 8, 16)
    want = [layers(vila_blocks(part, grid, s, version == "v1")) for part, grid in zip(parts, grids)]
    with torch.no_grad():
        found = projector(torch.cat(parts), grids)
    torch.testing.assert_close(found, torch.cat(want), atol=1e-5, rtol=1e-5)
    assert [len(tokens) for tokens in want] == [num_tokens(config, *grid) for grid in grids]
    assert num_tokens(config, 27, 27) == (196 if s == 2 else 81)


def test_the_two_orders_differ():
    """A control: the parity above would see exchanged rows and columns."""
    x = torch.randn(24, 3)
    assert not torch.equal(vila_blocks(x, (4, 6), 2, True), vila_blocks(x, (4, 6), 2, False))


@pytest.mark.parametrize("change", [{"downsample": 4}, {"downsample": True}, {"downsample": None}])
def test_other_blocks_are_refused(change):
    with pytest.raises(ValueError, match=r"\['downsample'\] must be 2 or 3"):
        build_projector(default_config({"type": "spatial_to_channel", **change}, 8, 16), 8, 16)


def test_another_head_keeps_the_funnel():
    config = default_config({"type": "spatial_to_channel", "downsample": 3, "head": "nemotron"}, 8, 16)
    projector = build_projector(config, 8, 16)
    assert projector.funnel.weight.shape == (24, 72) and projector.linear_1.weight.shape == (64, 24)
    assert projector.linear_1.bias is None
