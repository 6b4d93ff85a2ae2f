"""The batch a stage is planned for: rows, tokens, and the pictures among them."""

from dataclasses import dataclass, replace

from training.recipe import Recipe

_SIDES = (4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256, 192, 128, 96, 64, 32)


@dataclass(frozen=True)
class PlannedBatch:
    """What one process takes in one forward pass.

    Attributes:
        rows, length: of `input_ids`; a padded batch is planned at its longest.
        grids: patches of each feature map, as in `image_grid_hw`. patches: of all pictures, every view counted.
        image_tokens: of all pictures. packed: rows hold several samples without padding.
    """

    rows: int
    length: int
    grids: tuple[tuple[int, int], ...] = ()
    patches: int = 0
    image_tokens: int = 0
    packed: bool = False

    @property
    def tokens(self) -> int:
        """Positions of all rows."""
        return self.rows * self.length

    def cut(self, length: int, rows: int | None = None) -> "PlannedBatch":
        """The same kind of batch with shorter or fewer rows, pictures in proportion."""
        rows = self.rows if rows is None else rows
        share = rows * length / self.tokens
        count = int(len(self.grids) * share)
        share = count / max(len(self.grids), 1)
        return replace(
            self, rows=rows, length=length, grids=self.grids[:count], patches=int(self.patches * share),
            image_tokens=int(self.image_tokens * share),
        )  # fmt: skip


def planned_batch(recipe: Recipe, config, image_share: float) -> PlannedBatch:
    """A batch of `recipe` whose tokens are pictures to `image_share`: as many of the largest as fit, then smaller
    ones.

    Args:
        config: of the model: its geometry and projector say what a picture costs.
    """
    data = recipe.data
    length = (data.pack_length or data.max_length) if data.packing else data.max_length
    rows = recipe.train.per_device_batch_size
    grids, patches, tokens = [], 0, 0
    for maps, cost, size in _pictures(config) if image_share > 0 else ():
        count = int((image_share * length * rows - tokens) // cost)
        grids += maps * count
        patches, tokens = patches + size * count, tokens + cost * count
    return PlannedBatch(rows, length, tuple(grids), patches, tokens, data.packing)


def _pictures(config) -> list[tuple[list[tuple[int, int]], int, int]]:
    """(feature maps, tokens, patches) of pictures from the most expensive to the cheapest."""
    from projectors.components import num_tokens
    from vlm.geometry import plan_picture

    found = {}
    for side in _SIDES:
        for other in (side, side * 3 // 4):
            try:
                plan = plan_picture(side, other, config.geometry)
            except ValueError:  # a shape this geometry refuses
                continue
            tokens = sum(num_tokens(config.projector_config, *grid) for grid in plan.maps)
            found[tokens] = (list(plan.maps), tokens, plan.num_patches)
    return [found[tokens] for tokens in sorted(found, reverse=True)]
