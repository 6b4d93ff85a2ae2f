"""The attention resampler: explicit attention as its twin, masks that hide padding, places that matter."""

import pytest
import torch
import torch.nn.functional as F

from projectors.components import build_projector, default_config, num_tokens
from projectors.resampler import grid_positions


def make(**change):
    torch.manual_seed(0)
    config = default_config({"type": "resampler", "num_queries": 5, "hidden_size": 16, "num_heads": 4, **change}, 8, 12)
    projector = build_projector(config, 8, 12)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return config, projector


def slow_positions(h: int, w: int, width: int) -> torch.Tensor:
    rows = []
    for row in range(h):
        for col in range(w):
            values = []
            for place in ((row + 0.5) / h * 128, (col + 0.5) / w * 128):
                angles = [place / 10000 ** (4 * i / width) for i in range(width // 4)]
                values += [torch.tensor(a).sin() for a in angles] + [torch.tensor(a).cos() for a in angles]
            rows.append(torch.stack(values))
    return torch.stack(rows)


def slow_resampler(projector, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """One picture `(h*w, 8) -> (queries, 12)`, head by head, softmax written out."""
    x = projector.patch_norm(projector.input_proj(projector.input_norm(patches)))
    queries = projector.queries
    for layer in projector.layers:
        q, k, v = layer.q_proj(layer.norm_1(queries)), layer.k_proj(x + slow_positions(*grid, 16)), layer.v_proj(x)
        heads = []
        for i in range(0, 16, 4):
            weights = (q[:, i : i + 4] @ k[:, i : i + 4].T / 2).softmax(-1)
            heads.append(weights @ v[:, i : i + 4])
        queries = queries + layer.o_proj(torch.cat(heads, -1))
        queries = queries + layer.linear_2(F.gelu(layer.linear_1(layer.norm_2(queries))))
    return projector.output_proj(projector.output_norm(queries))


@pytest.mark.parametrize("layers", [1, 2])
def test_padded_and_masked_equals_explicit_attention_one_by_one(layers):
    """Very unequal sizes in one call, values and gradients."""
    config, projector = make(layers=layers)
    grids = [(1, 1), (9, 11), (1, 7), (4, 4), (2, 8)]
    parts = [torch.randn(h * w, 8) for h, w in grids]
    runs = []
    for packed in (True, False):
        projector.zero_grad()
        if packed:
            out = projector(torch.cat(parts), grids)
        else:
            out = torch.cat([slow_resampler(projector, part, grid) for part, grid in zip(parts, grids)])
        out.square().sum().backward()
        runs.append((out.detach(), torch.cat([p.grad.flatten() for p in projector.parameters()])))
    assert len(runs[0][0]) == 5 * len(grids) == sum(num_tokens(config, *grid) for grid in grids)
    torch.testing.assert_close(runs[0][0], runs[1][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(runs[0][1], runs[1][1], atol=1e-3, rtol=1e-3)


def test_places_matter_and_are_relative():
    _, projector = make()
    features = torch.randn(24, 8)
    assert not torch.allclose(projector(features, [(4, 6)]), projector(features, [(6, 4)]), atol=1e-3)
    turned = features.view(4, 6, 8).flip(1).reshape(24, 8)
    assert not torch.allclose(projector(features, [(4, 6)]), projector(turned, [(4, 6)]), atol=1e-3)
    torch.testing.assert_close(grid_positions(3, 5, 16), slow_positions(3, 5, 16))
    middle = grid_positions(3, 3, 16)[4]
    torch.testing.assert_close(middle, grid_positions(5, 7, 16)[2 * 7 + 3])  # the middle of any picture is one place


def test_equal_counts_of_unlike_grids_need_no_mask():
    _, projector = make()
    a, b = torch.randn(12, 8), torch.randn(12, 8)
    together = projector(torch.cat([a, b]), [(3, 4), (2, 6)])
    alone = torch.cat([projector(a, [(3, 4)]), projector(b, [(2, 6)])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_queries": 0}, "'num_queries'"),
        ({"layers": None}, "'layers'"),
        ({"num_heads": 3}, "'hidden_size'.*16.*'num_heads'.*3"),
        ({"hidden_size": 18, "num_heads": 2}, "'hidden_size'.*18.*multiple of 4"),
        ({"head": "llava"}, "'head'.*'resampler' has no head"),
    ],
)
def test_impossible_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)
