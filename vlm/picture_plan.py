"""What becomes of one picture: the canvases it is resized to, the views they are cut into, the maps that come out.

A view is what the encoder sees as a picture of its own. A map is what the projector sees, one row of `image_grid_hw`.
"""

from dataclasses import dataclass

from vlm.geometry_fields import filled
from vlm.patch_budget import budget_grid
from vlm.scale_grids import scale_grids
from vlm.tile_grids import tile_grid


@dataclass(frozen=True)
class Canvas:
    """The picture resized to `grid_h` x `grid_w` patches and cut into `rows` x `cols` equal views."""

    grid_h: int
    grid_w: int
    rows: int = 1
    cols: int = 1

    @property
    def view(self) -> tuple[int, int]:
        """The grid of one view."""
        return self.grid_h // self.rows, self.grid_w // self.cols

    @property
    def num_views(self) -> int:
        return self.rows * self.cols


@dataclass(frozen=True)
class PicturePlan:
    """The canvases of one picture and its feature maps.

    The patches of a picture lie canvas by canvas, view by view in raster order, inside a view in raster order.
    `maps` are the grids the projector sees: one a view in mode "tiles" (the thumbnail last), the grid of the last scale
    in mode "multi_scale", the only grid otherwise.
    """

    canvases: tuple[Canvas, ...]
    maps: tuple[tuple[int, int], ...]

    @property
    def num_patches(self) -> int:
        """Patches the encoder sees."""
        return sum(canvas.grid_h * canvas.grid_w for canvas in self.canvases)

    @property
    def views(self) -> tuple[tuple[int, int], ...]:
        """The grid of every picture the encoder sees, in the order of the patches."""
        return tuple(canvas.view for canvas in self.canvases for _ in range(canvas.num_views))


def single(grid: tuple[int, int]) -> PicturePlan:
    """One canvas that is its only view and map."""
    return PicturePlan((Canvas(*grid),), (grid,))


def check_area(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} x {width} pixels has no area")


def plan_picture(height: int, width: int, geometry: dict) -> PicturePlan:
    """The plan of an image of `height` x `width` pixels; every size from 1 x 1 has one.

    Grid sides of every view are positive multiples of `geometry["multiple"]`. How far the aspect ratio changes is said
    by `vlm.patch_budget.budget_grid` (dynamic), `vlm.tile_grids.closest` (tiles, and the last of several scales); mode
    "fixed" and square scales do not keep it.
    """
    check_area(height, width)
    full = filled(geometry)
    patch = full["patch_size"]
    if full["mode"] == "fixed":
        return single((full["size"][0] // patch, full["size"][1] // patch))
    if full["mode"] == "tiles":
        side = full["tile_size"] // patch
        rows, cols = tile_grid(height, width, full["tile_size"], full["max_tiles"], full["aspect_rule"])
        canvases = [Canvas(rows * side, cols * side, rows, cols)]
        if full["thumbnail"] and rows * cols > 1:
            canvases.append(Canvas(side, side))
        return PicturePlan(tuple(canvases), ((side, side),) * sum(canvas.num_views for canvas in canvases))
    if full["mode"] == "multi_scale":
        side = full["scales"][0] // patch
        grids = scale_grids(height, width, full["scales"], full["last_scale"], full["max_tiles"])
        canvases = tuple(Canvas(rows * side, cols * side, rows, cols) for rows, cols in grids)
        return PicturePlan(canvases, ((canvases[-1].grid_h, canvases[-1].grid_w),))
    low, high = full["min_num_patches"], full["max_num_patches"]
    return single(budget_grid(height, width, patch, full["multiple"], low, high))


def frame_geometry(geometry: dict, video: dict | None) -> dict:
    """The geometry of one frame: in mode "dynamic" under the budget `video["max_num_patches"]`, where there is one."""
    budget = (video or {}).get("max_num_patches")
    full = filled(geometry)
    if not budget or full["mode"] != "dynamic":
        return full
    return {**full, "max_num_patches": budget, "min_num_patches": min(full["min_num_patches"], budget)}


def plan_frame(height: int, width: int, geometry: dict, video: dict | None = None) -> PicturePlan:
    """The plan of one video frame: always one canvas and one view.

    Mode "dynamic" within `video["max_num_patches"]`; "fixed": its size; "tiles": one square tile; "multi_scale": one
    view of the first scale.
    """
    check_area(height, width)
    full = frame_geometry(geometry, video)
    side = {"tiles": full.get("tile_size"), "multi_scale": full.get("scales", [None])[0]}.get(full["mode"])
    if side is None:
        return plan_picture(height, width, full)
    return single((side // full["patch_size"],) * 2)


def plan_scales(map_grid: tuple[int, int], geometry: dict) -> tuple[Canvas, ...]:
    """The canvases of all scales behind the map of an image in mode "multi_scale", smallest first.

    Raises:
        ValueError: no picture has such a map under the scales.
    """
    full = filled(geometry)
    scales, side = full["scales"], full["scales"][0] // full["patch_size"]
    if any(length < side or length % side for length in map_grid):
        raise ValueError(
            f"a map of {map_grid[0]} x {map_grid[1]} patches is not made of views of {side} x {side} "
            f"(geometry scales={scales}, patch_size={full['patch_size']})"
        )
    squares = [scale // scales[0] for scale in scales[:-1]]
    grids = [*((n, n) for n in squares), (map_grid[0] // side, map_grid[1] // side)]
    return tuple(Canvas(rows * side, cols * side, rows, cols) for rows, cols in grids)


def views_of(map_grid: tuple[int, int], geometry: dict, is_frame: bool = False) -> list[tuple[int, int]]:
    """The encoder pictures behind one map, in the order of their patches: the map itself, but for an image in mode
    "multi_scale" the views of every scale. Errors: those of `plan_scales`."""
    if geometry.get("mode") != "multi_scale" or is_frame:
        return [tuple(map_grid)]
    return [canvas.view for canvas in plan_scales(map_grid, geometry) for _ in range(canvas.num_views)]
