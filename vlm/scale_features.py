"""Multi-scale pictures (S2, and Dynamic-S2 of NVILA): features of all scales on the grid of the last, side by side.

The encoder sees every scale in views of one size. Their features are put together scale by scale, resized by area to
the last scale's grid and concatenated on channels. A video frame has one view only, repeated for every scale, as NVILA
does.
"""

import torch
import torch.nn.functional as F

from vlm.geometry import plan_scales
from vlm.geometry_fields import filled


def num_scales(geometry: dict) -> int:
    """How many times wider than the encoder's the projector's input is; `geometry` may be unchecked."""
    if geometry.get("mode") != "multi_scale":
        return 1
    scales = filled(geometry)["scales"]
    return len(scales) if isinstance(scales, (list, tuple)) else 1


def join_views(features: torch.Tensor, grid_h: int, grid_w: int, rows: int, cols: int) -> torch.Tensor:
    """Features `(rows * cols * view patches, D)` of views in raster order -> `(grid_h, grid_w, D)` of the whole."""
    views = features.view(rows, cols, grid_h // rows, grid_w // cols, -1)
    return views.transpose(1, 2).reshape(grid_h, grid_w, -1)


def merge_scales(features: torch.Tensor, maps: list[tuple[int, int]], num_images: int, geometry: dict) -> torch.Tensor:
    """`(patches of all views, D)` -> `(patches of all maps, scales * D)`.

    Args:
        maps: Grids of the images, then of the frames; see `vlm.geometry.views_of`.
        num_images: How many of them are images.
    """
    merged, start = [], 0
    for number, (grid_h, grid_w) in enumerate(maps):
        if number >= num_images:
            merged.append(features[start : start + grid_h * grid_w].repeat(1, num_scales(geometry)))
            start += grid_h * grid_w
            continue
        scales = []
        for canvas in plan_scales((grid_h, grid_w), geometry):
            size = canvas.grid_h * canvas.grid_w
            joined = join_views(features[start : start + size], canvas.grid_h, canvas.grid_w, canvas.rows, canvas.cols)
            start += size
            if (canvas.grid_h, canvas.grid_w) != (grid_h, grid_w):
                resized = F.interpolate(joined.permute(2, 0, 1)[None].float(), (grid_h, grid_w), mode="area")
                joined = resized[0].permute(1, 2, 0).to(features.dtype)
            scales.append(joined.flatten(0, 1))
        merged.append(torch.cat(scales, dim=-1))
    return torch.cat(merged)
