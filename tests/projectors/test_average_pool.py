"""Average pooling: means over the patches there are, window by window."""

import pytest
import torch

from projectors.average_pool import average_pool
from projectors.components import build_projector, default_config, num_tokens


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (1, 6), (7, 1), (1, 1), (2, 9)])
def test_equals_window_by_window(grid, k):
    h, w = grid
    x = torch.randn(2, h * w, 5) + 3
    maps = x.view(2, h, w, 5)
    want = [maps[:, i : i + k, j : j + k].mean((1, 2)) for i in range(0, h, k) for j in range(0, w, k)]
    torch.testing.assert_close(average_pool(x, grid, k), torch.stack(want, 1))
    config = default_config({"type": "average_pool", "downsample": k}, 8, 16)
    assert num_tokens(config, h, w) == len(want)


def test_means_of_half_precision_are_rounded_once():
    x = torch.randn(1, 144, 5) * 30
    exact = average_pool(x.bfloat16().float(), (12, 12), 4)
    assert torch.equal(average_pool(x.bfloat16(), (12, 12), 4), exact.bfloat16())


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
def test_impossible_windows_are_named(value):
    with pytest.raises(ValueError, match=r"\['downsample'\] must be a positive int"):
        build_projector(default_config({"type": "average_pool", "downsample": value}, 8, 16), 8, 16)
