"""RADIO's patch embeddings: patches of pictures and video tubelets to token sequences, with cropped positions (CPE).

Native `RadioPatchEmbeddings` plus what it lacks: pictures and tubelets of any grids in one pass, the position
augmentation of RADIO's own training, a bias of the patch projection and a norm of the joined tokens. Position embedding
is float32 whatever the dtype of the weights, and kept per grid while nothing trains.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.radio.modeling_radio import RadioPatchEmbeddings

from encoders.radio_config import RadioEncoderConfig

Grid = tuple[int, int]

SMALLEST_SCALE = math.sqrt(0.1)
LARGEST_ASPECT = 4 / 3


def training_windows(table: torch.Tensor, grid: Grid, batch: int) -> torch.Tensor:
    """Position embeddings `(batch, h*w, D)` from a random window of the table for each picture.

    A window covers a share of the table between sqrt(0.1) and 1 a side, changed in aspect by up to 4/3, anywhere in it;
    values are read bilinearly, zeros outside. The numbers are drawn in the order of NVlabs/RADIO (scale, aspect,
    offset), so that a seed gives the same windows.

    Args:
        table: `(1, D, R, C)` float32.
    """
    device = table.device
    scale = torch.rand(batch, 1, 1, device=device) * (1 - SMALLEST_SCALE) + SMALLEST_SCALE
    low, high = math.log(1 / LARGEST_ASPECT), math.log(LARGEST_ASPECT)
    aspect = torch.exp(torch.rand(batch, 1, 1, device=device) * (high - low) + low)
    extent = torch.stack([scale * aspect, scale / aspect], dim=-1).clamp(0, 1)  # (batch, 1, 1, xy)
    offset = torch.rand(batch, 1, 1, 2, device=device) * (1 - extent)
    rows, columns = (torch.linspace(0, 1, side, device=device) for side in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([x, y], dim=-1) * extent + offset
    read = F.grid_sample(
        table.expand(batch, -1, -1, -1), points * 2 - 1, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return read.flatten(2).transpose(1, 2)


class GridPatchEmbeddings(RadioPatchEmbeddings):
    """Patch embeddings that also accept flattened patches of pictures and of video tubelets at once."""

    _positions: dict[tuple, torch.Tensor]  # kept position embeddings, per grid

    def extend(self, config: RadioEncoderConfig) -> None:
        """Make a native module this one: same parameters, plus what `config` asks for beyond them."""
        self.__class__ = GridPatchEmbeddings
        self._positions = {}
        self.video_frames = 1  # consecutive pictures that share a drawn window, see `video_mode`
        self.cpe_training, self.pos_dropout = config.cpe_training, config.pos_dropout
        if config.patch_bias:
            self.patch_projection = nn.Linear(config.patch_dim, config.hidden_size)
        self.patch_norm = nn.LayerNorm(config.hidden_size) if config.patch_norm else nn.Identity()

    def train(self, mode: bool = True) -> "GridPatchEmbeddings":
        """Optimizers that write through `.data` leave no trace, so switching modes forgets the kept positions."""
        self._positions.clear()
        return super().train(mode)

    @contextmanager
    def video_mode(self, frames: int) -> Iterator[None]:
        """Inside, every `frames` consecutive pictures of a batch share one window; no effect outside training."""
        before, self.video_frames = self.video_frames, frames
        try:
            yield
        finally:
            self.video_frames = before

    def positions(self, grid: Grid) -> torch.Tensor:
        """Float32 position embedding `(1, h*w, D)` of a grid, as in evaluation."""
        table = self.position_embedding
        if torch.is_inference_mode_enabled() or self.training or (torch.is_grad_enabled() and table.requires_grad):
            return self._interpolate_position_embedding(grid, torch.float32)
        key = (grid, table.device, table.data_ptr(), table._version)
        if key not in self._positions:
            if len(self._positions) >= 256:
                self._positions.clear()
            self._positions[key] = self._interpolate_position_embedding(grid, torch.float32).detach()
        return self._positions[key]

    def training_positions(self, grid: Grid, batch: int) -> torch.Tensor:
        """Float32 position embeddings `(1 or batch, h*w, D)` as drawn in RADIO's own training, before dropout.

        Raises:
            ValueError: if `batch` is no multiple of the frames of `video_mode`.
        """
        if tuple(grid) == (self.max_rows, self.max_cols):
            return self.position_embedding.float()
        if batch % self.video_frames:
            raise ValueError(f"a batch of {batch} pictures is no whole number of videos of {self.video_frames} frames")
        table = self.position_embedding.float().view(1, self.max_rows, self.max_cols, -1).permute(0, 3, 1, 2)
        drawn = training_windows(table, grid, batch // self.video_frames)
        return drawn.repeat_interleave(self.video_frames, dim=0)

    def _add_positions(self, patches: torch.Tensor, grid: Grid) -> torch.Tensor:
        """`patches` `(n, h*w, D)` of pictures of one grid plus their positions, added in float32."""
        if not (self.training and self.cpe_training):
            return (patches.float() + self.positions(grid)).to(patches.dtype)
        positions = self.training_positions(grid, len(patches))
        if self.pos_dropout > 0:
            kept = torch.rand(len(patches), 1, 1, device=patches.device) > self.pos_dropout
            positions = torch.where(kept, positions, 0)
        return (patches.float() + positions).to(patches.dtype)

    def forward(
        self,
        pixel_values: torch.Tensor | None,
        image_grid_hw: torch.Tensor | None = None,
        tubelets: torch.Tensor | None = None,
        grids: list[Grid] | None = None,
        groups: list[tuple[Grid, list[int]]] | None = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        """With `grids`: the sequences (prefix tokens, then patches) of all pictures, then tubelets.

        Args:
            pixel_values: conditioned patches of the pictures `(patches, C*P*P)`.
            tubelets: conditioned patches of the tubelets `(patches, T*C*P*P)`.
            groups: from `group_by_grid(grids)`: one dense batch `(n, prefix + h*w, D)` a group; without it all
                sequences end to end, `(1, total, D)`.
        """
        if grids is None:
            return super().forward(pixel_values, image_grid_hw)
        # The assembly stays in this forward: sharded training (ZeRO-3) gathers the parameters only while it runs. It
        # also counts output tensors, which must be as many on every rank; hence one tensor without groups.
        patches = self._project(pixel_values, tubelets)
        prefix = self.cls_register_token.to(patches.dtype)
        if groups is not None and len(groups) == 1:
            (h, w), members = groups[0]
            batches = [patches.view(len(members), h * w, -1)]
        else:
            pictures = patches.split([h * w for h, w in grids])
            if groups is None:
                pieces = []
                for grid, picture in zip(grids, pictures):
                    pieces += [prefix, self._add_positions(picture[None], grid)[0]]
                return self.patch_norm(torch.cat(pieces).unsqueeze(0))
            batches = [torch.stack([pictures[i] for i in members]) for _, members in groups]
        sequences = []
        for (grid, members), batch in zip(groups, batches):
            # Positions before the prefix: autograd runs the later node first, so the prefix gets its gradient before
            # the position table, as in the packed form. Ranks of ZeRO reduce gradients in the order of their arrival.
            batch = self._add_positions(batch, grid)
            sequences.append(self.patch_norm(torch.cat([prefix.expand(len(members), -1, -1), batch], dim=1)))
        return sequences

    def _project(self, pixel_values: torch.Tensor | None, tubelets: torch.Tensor | None) -> torch.Tensor:
        """Both streams through their projections. While training, an absent stream still runs once with weight zero:
        its parameters get zero gradients, and no rank waits for another."""
        parts, idle = [], []
        streams = [(pixel_values, self.patch_projection)]
        if self.video_patch_projection is not None:
            streams.append((tubelets, self.video_patch_projection))
        elif tubelets is not None:
            raise ValueError("tubelets of several frames need `vision_config.video_temporal_patch_size`")
        for stream, projection in streams:
            if stream is not None:
                parts.append(projection(stream.to(projection.weight.dtype)))
            elif self.training:
                weight = projection.weight
                idle.append(projection(weight.new_zeros(1, projection.in_features)).sum() * 0.0)
        patches = parts[0] if len(parts) == 1 else torch.cat(parts)
        return patches + sum(idle) if idle else patches
