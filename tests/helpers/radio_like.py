"""Features as an encoder of pictures makes them: regions of one kind with sharp borders, fine parts, a common mean.

For what needs no weights: a smooth map tells a merge from an average, noise alone does not.
"""

import torch
import torch.nn.functional as F


def radio_like(grid_h: int, grid_w: int, width: int = 64, seed: int = 0, noise: float = 0.5) -> torch.Tensor:
    """`(1, grid_h * grid_w, width)`: a few regions of any shape (each a constant plus a gentle slope), small objects of
    one to three patches on top, noise, and an offset that all patches share, as RADIO's have."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    votes = F.interpolate(normal(1, 6, 5, 5), size=(grid_h, grid_w), mode="bicubic")[0]
    region = votes.argmax(0)
    slope = F.interpolate(normal(1, width, 3, 3), size=(grid_h, grid_w), mode="bilinear")[0].permute(1, 2, 0)
    maps = normal(6, width)[region] + 0.3 * slope
    kinds = normal(8, width)
    for number in range(grid_h * grid_w // 40):  # letters and other small things
        row, col = (int(torch.randint(side, (1,), generator=generator)) for side in (grid_h, grid_w))
        size = 1 + number % 3
        maps[row : row + 1, col : col + size] = kinds[number % 8]
    return (maps + noise * normal(grid_h, grid_w, width) + normal(width)).flatten(0, 1)[None]


def pooled_error(x: torch.Tensor, grid: tuple[int, int], k: int = 2) -> float:
    """Mean squared error of k x k averages that are copied back to their patches; `x` (1, h*w, C)."""
    maps = x.view(*grid, -1).permute(2, 0, 1)[None]
    means = F.avg_pool2d(maps, k, ceil_mode=True, count_include_pad=False)
    back = means.repeat_interleave(k, 2).repeat_interleave(k, 3)[..., : grid[0], : grid[1]]
    return (back - maps).square().mean().item()


def merged_error(x: torch.Tensor, grid: tuple[int, int], num_tokens: int, stride: int) -> float:
    """Mean squared error of merged tokens that are copied back to their patches; `x` (1, h*w, C)."""
    from projectors.merging import fitting_stride, match

    merging = match(x, grid, num_tokens, fitting_stride(*grid, num_tokens, stride))
    return (merging.unmerge(merging.merge(x)[0]) - x).square().mean().item()
