"""RADIO for packed pictures: transformers' native `RadioModel` plus what a VLM needs of it.

* pictures of equal grids run as one dense batch (`how="dense"`), far faster than the native packed path, which loops
  over pictures without a varlen kernel; `how="packed"` is that native path, the twin the tests compare with;
* single frames, 2-frame tubelets and pictures share one pass through the blocks, so every rank of a sharded run makes
  the same calls whatever its batch holds;
* input conditioning and position embedding are float32 whatever the dtype of the weights; positions are kept per grid
  while nothing trains.

Weights and names are those of `RadioModel`.
"""

import torch
from torch.nn import functional as F
from transformers.models.radio.configuration_radio import RadioConfig
from transformers.models.radio.modeling_radio import RadioModel, RadioModelOutput, RadioPatchEmbeddings

Grid = tuple[int, int]


def group_by_grid(grids: list[Grid]) -> list[tuple[Grid, list[int]]]:
    """Positions of the pictures of each distinct grid, in order of first appearance."""
    groups: dict[Grid, list[int]] = {}
    for position, grid in enumerate(grids):
        groups.setdefault(grid, []).append(position)
    return list(groups.items())


class GridPatchEmbeddings(RadioPatchEmbeddings):
    """Native patch embeddings that also accept flattened patches of pictures and of video tubelets at once."""

    _positions: dict[tuple, torch.Tensor]  # kept position embeddings, per grid

    def train(self, mode: bool = True) -> "GridPatchEmbeddings":
        """Optimizers that write through `.data` leave no trace, so switching modes forgets the kept positions."""
        self._positions.clear()
        return super().train(mode)

    def positions(self, grid: Grid) -> torch.Tensor:
        """Float32 position embedding `(1, h*w, D)` of a grid."""
        table = self.position_embedding
        if torch.is_inference_mode_enabled() or self.training or (torch.is_grad_enabled() and table.requires_grad):
            return self._interpolate_position_embedding(grid, torch.float32)
        key = (grid, table.device, table.data_ptr(), table._version)
        if key not in self._positions:
            if len(self._positions) >= 256:
                self._positions.clear()
            self._positions[key] = self._interpolate_position_embedding(grid, torch.float32).detach()
        return self._positions[key]

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
                    pieces += [prefix, (picture.float() + self.positions(grid)[0]).to(patches.dtype)]
                return torch.cat(pieces).unsqueeze(0)
            batches = [torch.stack([pictures[i] for i in members]) for _, members in groups]
        sequences = []
        for (grid, members), batch in zip(groups, batches):
            batch = (batch.float() + self.positions(grid)).to(patches.dtype)
            sequences.append(torch.cat([prefix.expand(len(members), -1, -1), batch], dim=1))
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


class RadioVisionModel(RadioModel):
    """`RadioModel` whose packed input may hold pictures and video tubelets, batched by grid."""

    def __init__(self, config: RadioConfig) -> None:
        super().__init__(config)
        self.widen()

    def widen(self) -> "RadioVisionModel":
        """Give the native embeddings their wider forward: same module, same parameters, so it is safe for models that
        are on the meta device, sharded or already trained."""
        self.embeddings.__class__ = GridPatchEmbeddings
        self.embeddings._positions = {}
        return self

    def condition(self, patches: torch.Tensor) -> torch.Tensor:
        """Normalise flattened patches `(patches, [T*]C*P*P)` in [0, 1]; float32 in and out."""
        mean = getattr(self.input_conditioner, "norm_mean", None)
        if mean is None:  # `make_preprocessor_external()`: the caller has normalised
            return patches
        channels = mean.shape[0]
        if patches.dtype == torch.uint8:  # caches keep 0..255
            patches = patches.float() / 255
        split = patches.float().view(patches.shape[0], -1, channels, self.config.patch_size**2)
        normal = (split - mean.float().view(channels, 1)) / self.input_conditioner.norm_std.float().view(channels, 1)
        return normal.view(patches.shape)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        image_grid_hw: torch.Tensor | None = None,
        tubelets: torch.Tensor | None = None,
        grids: list[Grid] | None = None,
        how: str = "auto",
        **kwargs,
    ) -> RadioModelOutput:
        """With `grids`: `.features` `(total_patches, D)` of pictures, then tubelets; otherwise the native forward.

        Args:
            pixel_values: `(patches, C*P*P)` in [0, 1], channel-major, or None.
            tubelets: `(patches, T*C*P*P)` in [0, 1], frame-major, or None.
            grids: `(h, w)` of every picture, then of every tubelet.
            how: "dense" one call a grid, "packed" one call for all, "auto" chooses.
        """
        if grids is None:
            return super().forward(pixel_values, image_grid_hw=image_grid_hw, **kwargs)
        given = sum(len(stream) for stream in (pixel_values, tubelets) if stream is not None)
        if given != sum(h * w for h, w in grids):
            raise ValueError(f"got {given} patches, but the grids {grids[:8]} describe {sum(h * w for h, w in grids)}")
        groups = group_by_grid(grids)
        if how == "auto":
            how = self._choose(grids, groups)
        dense = how == "dense" or len(groups) == 1
        sequences = self.embeddings(
            None if pixel_values is None else self.condition(pixel_values),
            tubelets=None if tubelets is None else self.condition(tubelets),
            grids=grids,
            groups=groups if dense else None,
        )
        if dense:
            features = self._run_dense(sequences, groups, len(grids), **kwargs)
        else:
            features = self._run_packed(sequences, grids, **kwargs)
        return RadioModelOutput(features=features)

    def _choose(self, grids: list[Grid], groups: list) -> str:
        """Packed when there is a varlen kernel, when parameters are sharded over ranks (every rank must make the same
        number of calls) or when hardly any two pictures share a grid; else dense."""
        sharded = hasattr(self.embeddings.cls_register_token, "ds_id") or type(self).__name__.startswith("FSDP")
        flash = "flash" in (self.config._attn_implementation or "")
        return "packed" if flash or sharded or 2 * len(groups) > len(grids) else "dense"

    def _run_dense(self, sequences: list[torch.Tensor], groups: list, total: int, **kwargs) -> torch.Tensor:
        """One pass a group; the features back in the order of the pictures."""
        skip = self.config.num_summary_tokens
        outputs = [self.encoder(sequence, **kwargs).last_hidden_state[:, skip:] for sequence in sequences]
        if len(outputs) == 1:
            return outputs[0].flatten(0, 1)
        pieces: list[torch.Tensor | None] = [None] * total
        for (_, members), output in zip(groups, outputs):
            for position, piece in zip(members, output):
                pieces[position] = piece
        return torch.cat(pieces)

    def _run_packed(self, sequence: torch.Tensor, grids: list[Grid], **kwargs) -> torch.Tensor:
        """One pass for all, as in the native model."""
        skip = self.config.num_summary_tokens
        lengths = [skip + h * w for h, w in grids]
        ends = torch.tensor(lengths, device=sequence.device).cumsum(0)
        cu_seqlens = F.pad(ends, (1, 0)).to(torch.int32)
        packed = self.encoder(sequence, cu_seqlens=cu_seqlens, **kwargs).last_hidden_state[0]
        return torch.cat([piece[skip:] for piece in packed.split(lengths)])
