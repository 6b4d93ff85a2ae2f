"""RADIO as a model: transformers' native `RadioModel` plus what its released checkpoints and a VLM need of it.

* any picture is a token sequence of its own: a dense batch of one size, or packed patches of pictures and 2-frame
  tubelets of any grids. Pictures of equal grids run as one dense batch (`how="dense"`), far faster than the native
  packed path, which loops over pictures without a varlen kernel; `how="packed"` is that path, the twin the tests
  compare with;
* ViTDet windows, features of chosen blocks, final norm, feature normalizers and teacher heads, as the config says;
* input conditioning and position embedding are float32 whatever the dtype of the weights.

Weights and names are those of `RadioModel`; what goes beyond it has places of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.models.radio.configuration_radio import RadioConfig
from transformers.models.radio.modeling_radio import RadioModel, RadioModelOutput

from encoders.adaptors import Adaptors, build_adaptors
from encoders.feature_format import FORMATS, to_format
from encoders.feature_normalizers import FeatureNormalizer, IntermediateNormalizer
from encoders.input_size import Resolution, check_size, nearest_size
from encoders.intermediates import IntermediateCollector, IntermediateOutput
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_embeddings import GridPatchEmbeddings
from encoders.vitdet import Windows, run_windowed, window_schedule

Grid = tuple[int, int]


def group_by_grid(grids: list[Grid]) -> list[tuple[Grid, list[int]]]:
    """Positions of the pictures of each distinct grid, in order of first appearance."""
    groups: dict[Grid, list[int]] = {}
    for position, grid in enumerate(grids):
        groups.setdefault(grid, []).append(position)
    return list(groups.items())


@dataclass
class RadioEncoderOutput(RadioModelOutput):
    """Output of `RadioVisionModel`; the fields of `RadioModelOutput`, and:

    Attributes:
        features: (B, L, D), (B, D, h, w) with `feature_fmt="NCHW"`, or (total_patches, D) of packed pictures.
        adaptors: per teacher head its `summary` (B, C) and `features` (float32), shaped like `features`; u * u times
            the patches where the head upsamples by u.
        intermediates: features of the blocks asked for with `layers`, each like `features`.
    """

    adaptors: Adaptors | None = None
    intermediates: tuple[torch.Tensor, ...] | None = None


class RadioVisionModel(RadioModel):
    """`RadioModel` for pictures and video tubelets of any size, with everything a RADIO checkpoint may hold."""

    config: RadioEncoderConfig
    config_class = RadioEncoderConfig
    # rounded, they would shift every feature; they compute in float32 anyway
    _keep_in_fp32_modules_strict = {"feature_normalizer", "intermediate_normalizer"}

    def __init__(self, config: RadioConfig) -> None:
        super().__init__(RadioEncoderConfig.of(config))
        self.extend()
        self.post_init()

    def extend(self) -> "RadioVisionModel":
        """Give native modules their wider forms and add what the config asks for: same parameters, so it is safe for
        models that are on the meta device, sharded or already trained."""
        config = self.config
        self.embeddings.__class__ = GridPatchEmbeddings
        self.embeddings.extend(config)
        self.final_norm = nn.Identity()
        if config.final_norm:
            self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feature_normalizer = FeatureNormalizer(config.hidden_size) if config.feature_normalizer else None
        self.intermediate_normalizer = None
        if config.intermediate_normalizer:
            self.intermediate_normalizer = IntermediateNormalizer(
                config.num_hidden_layers, config.hidden_size, config.intermediate_normalizer["rot_per_layer"]
            )
        self.adaptors = build_adaptors(config)
        return self

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FeatureNormalizer):
            init.zeros_(module.mean)
            init.copy_(module.tx, torch.eye(len(module.mean)))
        elif isinstance(module, IntermediateNormalizer):
            init.ones_(module.alphas)
            init.zeros_(module.means)
            init.copy_(module.rotation, torch.eye(module.means.shape[1]).expand_as(module.rotation))

    @property
    def dtype(self) -> torch.dtype:
        """Of the blocks: the first parameter is a position table that stays float32 in half precision."""
        return self.encoder.layer[0].norm1.weight.dtype

    # ---- sizes --------------------------------------------------------------------------------------------------

    @property
    def min_resolution_step(self) -> int:
        """Height and width of an input must be multiples of this, in pixels."""
        return self.config.min_resolution_step

    def get_nearest_supported_resolution(self, height: int, width: int) -> Resolution:
        """The size nearest to `height` x `width` pixels that the model takes."""
        return nearest_size(height, width, self.min_resolution_step)

    def _check_grids(self, grids: list[Grid]) -> None:
        patch, window = self.config.patch_size, self.config.vitdet_window_size
        for h, w in set(grids):
            check_size(h * patch, w * patch, patch, window)

    # ---- pixels -------------------------------------------------------------------------------------------------

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

    @contextmanager
    def cpe_video_mode(self, frames: int) -> Iterator[None]:
        """Inside, every `frames` consecutive pictures of a training batch share their position window."""
        with self.embeddings.video_mode(frames):
            yield

    def _embed_batch(self, pixel_values: torch.Tensor) -> tuple[list[torch.Tensor], Grid]:
        """Token sequences `(B, S + L, D)`, in a list, of a dense batch of pictures or tubelets (T*C channels); their
        grid."""
        channels, patch = self.config.num_channels, self.config.patch_size
        frames = self.config.video_temporal_patch_size or 1
        if pixel_values.ndim != 4 or pixel_values.shape[1] not in (channels, frames * channels):
            known = f"(B, {channels}, H, W)" + (f" or (B, {frames * channels}, H, W)" if frames > 1 else "")
            raise ValueError(f"pixel_values of shape {tuple(pixel_values.shape)}: expected {known}")
        batch, given, height, width = pixel_values.shape
        check_size(height, width, patch, self.config.vitdet_window_size)
        grid = (height // patch, width // patch)
        patches = self.condition(self.embeddings._image_to_patches(pixel_values).flatten(0, 1))
        stream = {"pixel_values": patches} if given == channels else {"pixel_values": None, "tubelets": patches}
        sequences = self.embeddings(**stream, grids=[grid] * batch, groups=[(grid, list(range(batch)))])
        return sequences, grid

    # ---- blocks -------------------------------------------------------------------------------------------------

    def _run(
        self,
        box: list[torch.Tensor],
        grids: list[Grid],
        cu_seqlens: torch.Tensor | None = None,
        collector: IntermediateCollector | None = None,
        depth: int | None = None,
        **kwargs,
    ) -> RadioModelOutput:
        """The tokens `(B, T, D)` in `box` through the first `depth` blocks. `grids`: of the pictures laid end to end in
        one row. The box is emptied, so that nothing keeps the embeddings while the blocks run."""
        window = self.config.vitdet_window_size
        layers = self.encoder.layer[:depth]
        if window is None and collector is None:
            out = self.encoder(box.pop(), cu_seqlens=cu_seqlens, **kwargs)
            return RadioModelOutput(
                last_hidden_state=out.last_hidden_state, hidden_states=out.hidden_states, attentions=out.attentions
            )
        wants = {name: kwargs.pop(name, None) for name in ("output_hidden_states", "output_attentions")}
        if wants["output_attentions"] or getattr(self.config, "output_attentions", False):
            raise ValueError("attention maps are not kept under ViTDet windows or with `layers`: ask for either")
        states = [box[0]] if wants["output_hidden_states"] or self.config.output_hidden_states else None

        def tap(index: int, tokens: torch.Tensor) -> None:
            if states is not None:
                states.append(tokens)
            if collector is not None:
                collector(index, tokens)

        tapped = tap if states is not None or collector is not None else None
        if window is None:
            x = box.pop()
            for index, layer in enumerate(layers):
                x = layer(x, cu_seqlens=cu_seqlens, **kwargs)
                tapped(index, x)
        else:
            config = self.config
            schedule = window_schedule(config.num_hidden_layers, config.vitdet_num_global, config.vitdet_num_windowed)
            windows = Windows(grids, config.num_summary_tokens, window, box[0].device)
            x = run_windowed(layers, box, schedule, windows, cu_seqlens, tapped, **kwargs)
        return RadioModelOutput(last_hidden_state=x, hidden_states=None if states is None else tuple(states))

    def _collector(self, grids: list[Grid], device: torch.device, **options) -> IntermediateCollector:
        """Collector of block features of rows that hold pictures of these grids end to end."""
        skip = self.config.num_summary_tokens
        prefix = torch.zeros(skip, dtype=torch.bool)
        is_patch = torch.cat([part for h, w in grids for part in (prefix, torch.ones(h * w, dtype=torch.bool))])
        return IntermediateCollector(
            self.config.num_hidden_layers,
            normalizer=self.intermediate_normalizer,
            is_patch=is_patch.to(device),
            **options,
        )

    # ---- outputs ------------------------------------------------------------------------------------------------

    def _split(self, tokens: torch.Tensor, grid: Grid, feature_fmt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens `(B, S + L, D)` → summary `(B, S*D)` and features, before normalizer and heads."""
        summary = tokens[:, self.summary_idxs].flatten(1)
        return summary, to_format(tokens[:, self.config.num_summary_tokens :], grid, feature_fmt)

    def _finish(
        self, tokens: torch.Tensor, grid: Grid, feature_fmt: str, with_adaptors: bool = True
    ) -> RadioEncoderOutput:
        """Summary, normalised features and teacher heads of a dense batch `(B, S + L, D)`."""
        summary, features = self._split(tokens, grid, "NLC")
        if self.feature_normalizer is not None:
            features = self.feature_normalizer(features)
        adaptors = None
        if len(self.adaptors) and with_adaptors:
            adaptors = Adaptors(
                (name, head(tokens[:, head.head_idx], features, grid, feature_fmt))
                for name, head in self.adaptors.items()
            )
        features = to_format(features, grid, feature_fmt)
        return RadioEncoderOutput(summary=summary, features=features, last_hidden_state=tokens, adaptors=adaptors)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        image_grid_hw: torch.Tensor | None = None,
        tubelets: torch.Tensor | None = None,
        grids: list[Grid] | None = None,
        how: str = "auto",
        feature_fmt: str = "NLC",
        layers: list[int] | None = None,
        aggregation: str = "sparse",
        with_adaptors: bool = True,
        **kwargs,
    ) -> RadioEncoderOutput:
        """A dense batch of pictures, or packed patches with `image_grid_hw` or `grids`.

        Args:
            pixel_values: (B, C, H, W) in [0, 1]; packed: (patches, C*P*P) in [0, 1], channel-major, or None.
            image_grid_hw: (N, 2), as in the native model: `grids` as a tensor, and tokens are returned too.
            tubelets: (patches, T*C*P*P) in [0, 1], frame-major, or None; only with `grids`.
            grids: `(h, w)` of every packed picture, then of every tubelet.
            how: "dense" one call a grid, "packed" one call for all, "auto" chooses.
            feature_fmt: "NLC" or "NCHW"; packed features have no other form than (total_patches, D).
            layers, aggregation: blocks whose features are returned as `intermediates`, see `forward_intermediates`.
            with_adaptors: run the teacher heads, where the model has any.
            **kwargs: of the native forward; with `layers` also `depth`: run only so many blocks.

        Raises:
            ValueError: for a size that patches or windows do not divide (naming the nearest that fits), patches that
                do not match `grids`, an unknown format.
        """
        if feature_fmt not in FORMATS:
            raise ValueError(f"feature_fmt={feature_fmt!r}; known: {', '.join(FORMATS)}")
        return_dict = kwargs.pop("return_dict", None)
        chosen = None if layers is None else {"indices": layers, "aggregation": aggregation}
        if grids is None and image_grid_hw is None:
            box, grid = self._embed_batch(pixel_values)
            collector = chosen and self._collector([grid], box[0].device, **chosen)
            out = self._run(box, [grid], collector=collector, **kwargs)
            result = self._finish(self.final_norm(out.last_hidden_state), grid, feature_fmt, with_adaptors)
            result.hidden_states, result.attentions = out.hidden_states, out.attentions
            if collector:
                result.intermediates = tuple(self._split(x, grid, feature_fmt)[1] for x in collector.outputs)
            return result if return_dict is not False else result.to_tuple()
        if feature_fmt != "NLC":
            raise ValueError("packed pictures of several sizes have no NCHW form: leave feature_fmt out")
        tokens_too = grids is None
        if grids is None:
            grids = [tuple(row) for row in torch.as_tensor(image_grid_hw).tolist()]
        result = self._forward_pictures(pixel_values, tubelets, grids, how, chosen, with_adaptors, tokens_too, **kwargs)
        return result if return_dict is not False else result.to_tuple()

    def _forward_pictures(
        self, pixel_values, tubelets, grids, how, chosen, with_adaptors, tokens_too, **kwargs
    ) -> RadioEncoderOutput:
        """Packed pictures and tubelets: see `forward`."""
        for stream, width in ((pixel_values, self.config.patch_dim), (tubelets, self.config.video_patch_dim)):
            if stream is not None and (stream.ndim != 2 or width is not None and stream.shape[1] != width):
                raise ValueError(
                    f"packed pixels of shape {tuple(stream.shape)}: expected flattened patches (patches, {width})"
                )
        given = sum(len(stream) for stream in (pixel_values, tubelets) if stream is not None)
        if given != sum(h * w for h, w in grids):
            raise ValueError(f"got {given} patches, but the grids {grids[:8]} describe {sum(h * w for h, w in grids)}")
        self._check_grids(grids)
        groups = group_by_grid(grids)
        if how == "auto":
            how = self._choose(grids, groups)
        states_too = kwargs.get("output_hidden_states") or kwargs.get("output_attentions")  # of one pass only
        dense = (how == "dense" or len(groups) == 1) and not states_too
        sequences = self.embeddings(
            None if pixel_values is None else self.condition(pixel_values),
            tubelets=None if tubelets is None else self.condition(tubelets),
            grids=grids,
            groups=groups if dense else None,
        )
        # rows of equal grids, or one row with everything: per pass the grids of a row and the pictures in its rows
        passes = [([grid], members) for grid, members in groups] if dense else [(grids, list(range(len(grids))))]
        skip, outs = self.config.num_summary_tokens, []
        pieces: list[list[torch.Tensor | None]] = []
        boxes = [[sequence] for sequence in (sequences if dense else [sequences])]
        del sequences
        for (row, members), box in zip(passes, boxes):
            collector = chosen and self._collector(row, box[0].device, **chosen)
            cu_seqlens = None
            if not dense:
                ends = torch.tensor([skip + h * w for h, w in row], device=box[0].device).cumsum(0)
                cu_seqlens = F.pad(ends, (1, 0)).to(torch.int32)
            outs.append(out := self._run(box, row, cu_seqlens, collector, **kwargs))
            levels = [self.final_norm(out.last_hidden_state), *(collector.outputs if collector else ())]
            pieces = pieces or [[None] * len(grids) for _ in levels]
            for level, tokens in zip(pieces, levels):
                parts = tokens if dense else tokens[0].split([skip + h * w for h, w in row])
                for position, part in zip(members, parts):
                    level[position] = part
        final = pieces[0]
        features = torch.cat([part[skip:] for part in final])
        if self.feature_normalizer is not None:
            features = self.feature_normalizer(features)
        result = RadioEncoderOutput(
            summary=torch.stack([part[self.summary_idxs].flatten() for part in final]), features=features
        )
        if chosen:
            result.intermediates = tuple(torch.cat([part[skip:] for part in level]) for level in pieces[1:])
        if len(self.adaptors) and with_adaptors:
            result.adaptors = Adaptors(
                (name, head.forward_packed(torch.stack([part[head.head_idx] for part in final]), features, grids))
                for name, head in self.adaptors.items()
            )
        if tokens_too:
            result.last_hidden_state = torch.cat(final)
            if not dense:
                result.hidden_states, result.attentions = outs[0].hidden_states, outs[0].attentions
        return result

    def _choose(self, grids: list[Grid], groups: list) -> str:
        """Packed when there is a varlen kernel, when parameters are sharded over ranks (every rank must make the same
        number of calls) or when hardly any two pictures share a grid; else dense."""
        sharded = hasattr(self.embeddings.cls_register_token, "ds_id") or type(self).__name__.startswith("FSDP")
        flash = "flash" in (self.config._attn_implementation or "")
        return "packed" if flash or sharded or 2 * len(groups) > len(grids) else "dense"

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | tuple[int, ...] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        aggregation: str = "sparse",
        norm_alpha_scheme: str = "post-alpha",
    ):
        """Features of chosen blocks of a batch `x` `(B, C, H, W)` in [0, 1]; under ViTDet too.

        Definitions are NVlabs/RADIO's: the result's order is that of the blocks, whatever the order of `indices`.

        Args:
            indices: block numbers (negative ones count from the end), or an int n for the last n blocks.
            return_prefix_tokens: each entry is `(summary, features)`.
            norm: apply the final norm to each entry and to the final output; without it the final output lacks it too.
            stop_early: do not run blocks after the last index; the final output then is that block's.
            output_fmt: "NCHW" (B, D, h, w) or "NLC" (B, L, D).
            intermediates_only: return only the list; otherwise `(RadioEncoderOutput, list)`.
            aggregation: "sparse", or "dense": mean over the blocks since the previous index.
            norm_alpha_scheme: see `IntermediateCollector`; matters for checkpoints with an intermediate normalizer.
        """
        if output_fmt not in FORMATS:
            raise ValueError(f"output_fmt={output_fmt!r}; known: {', '.join(FORMATS)}")
        options = {"indices": indices, "aggregation": aggregation, "norm_alpha_scheme": norm_alpha_scheme}
        final_norm = self.final_norm if norm else None
        box, grid = self._embed_batch(x)
        collector = self._collector([grid], box[0].device, norm=final_norm, **options)
        depth = collector.indices[-1] + 1 if stop_early else None
        out = self._run(box, [grid], collector=collector, depth=depth)
        results = [IntermediateOutput(*self._split(tokens, grid, output_fmt)) for tokens in collector.outputs]
        if not return_prefix_tokens:
            results = [result.features for result in results]
        if intermediates_only:
            return results
        tokens = out.last_hidden_state if final_norm is None else final_norm(out.last_hidden_state)
        return self._finish(tokens, grid, output_fmt), results
