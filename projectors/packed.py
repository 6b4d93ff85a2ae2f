"""Pictures of any sizes laid end to end: a function of pictures of one grid, applied to all of them.

Equal grids make one batch, so a prompt of many tiles or frames costs one call, and no picture is ever padded.
"""

from collections.abc import Callable

import torch

Grid = tuple[int, int]


class TakesAnyGrid:
    """What projectors say that take grids of any sides."""

    @staticmethod
    def grid_multiple(config: dict) -> int:
        """Any grid."""
        return 1


def check_packed(features: torch.Tensor, grids: list[Grid]) -> None:
    """Raise ValueError unless there are as many features as the grids have patches."""
    total = sum(h * w for h, w in grids)
    if len(features) != total:
        raise ValueError(f"{len(features)} features, but the grids {list(grids)[:4]} ... have {total} patches")


def map_grids(
    function: Callable[[torch.Tensor, Grid], torch.Tensor], features: torch.Tensor, grids: list[Grid]
) -> torch.Tensor:
    """`(total_patches, C) -> (total_tokens, C')`, in the order of the pictures.

    Args:
        function: `(B, h*w, C), (h, w) -> (B, T, C')` for pictures of one grid.
        features: pictures end to end. grids: (h, w) of each.
    """
    check_packed(features, grids)
    groups: dict[Grid, list[int]] = {}
    for number, grid in enumerate(grids):
        groups.setdefault(tuple(grid), []).append(number)
    if len(groups) == 1:
        (h, w), count = tuple(grids[0]), len(grids)
        return function(features.view(count, h * w, -1), (h, w)).flatten(0, 1)
    pictures = features.split([h * w for h, w in grids])
    tokens: list[torch.Tensor] = [features] * len(grids)
    for grid, numbers in groups.items():
        for number, own in zip(numbers, function(torch.stack([pictures[i] for i in numbers]), grid), strict=True):
            tokens[number] = own
    return torch.cat(tokens)
