"""Pictures to tokens: packed pixels through encoder and projector, scales merged, frames averaged, videos pruned.

One pass for all images and frames of a batch, so that every rank makes the same calls whatever its batch holds.
"""

import torch

from projectors.components import num_tokens, project
from vlm.errors import RadioVLMError
from vlm.evs import check_places
from vlm.geometry import views_of
from vlm.scale_features import merge_scales, num_scales
from vlm.video_tokens import MediaTokens, video_tokens
from vlm.vision_features import picture_features


class MediaEncoderMixin:
    """What `RadioVLMForConditionalGeneration` does before its language model."""

    def tokens_per_picture(self, grids: torch.Tensor | None, kept: torch.Tensor | None = None) -> list[int]:
        """Tokens of each row of `image_grid_hw` (N, 2) or `video_grid_thw` (V, 3).

        `kept`: `video_num_tokens` (V,), what the processor left of each video.
        """
        rows = [] if grids is None else grids.tolist()
        config, pool = self.config.projector_config, self.config.video["temporal_pool"]
        whole = [num_tokens(config, *row[-2:]) * (-(-row[0] // pool) if len(row) == 3 else 1) for row in rows]
        if kept is None:
            return whole
        kept = kept.tolist()
        least = [num_tokens(config, *row[-2:]) for row in rows]
        if len(kept) != len(whole) or any(not low <= k <= full for low, k, full in zip(least, kept, whole)):
            raise RadioVLMError(
                f"video_num_tokens={kept} does not fit videos of {whole} tokens: at least one frame of each stays, and "
                "one number a video is needed"
            )
        if kept != whole:
            check_places(config, 1 - sum(kept) / sum(whole), pool)
        return kept

    def media_tokens(
        self,
        pixel_values: torch.Tensor | None = None,
        image_grid_hw: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        video_num_tokens: torch.Tensor | None = None,
    ) -> MediaTokens:
        """Tokens of all images and all videos in one pass through encoder and projector; arguments of `encode_media`.
        """
        config = self.config
        images = [] if image_grid_hw is None else [tuple(row) for row in image_grid_hw.tolist()]
        thws = [] if video_grid_thw is None else video_grid_thw.tolist()
        maps = images + [(h, w) for t, h, w in thws for _ in range(t)]
        views = [views_of(grid, config.geometry, is_frame=i >= len(images)) for i, grid in enumerate(maps)]
        device = self.vision_model.summary_idxs.device  # buffers stay in place when weights are offloaded
        pixels, tubelets = (None if x is None else x.to(device) for x in (pixel_values, pixel_values_videos))
        if tubelets is not None and config.video["temporal_patch_size"] == 1:
            pixels, tubelets = tubelets if pixels is None else torch.cat([pixels, tubelets]), None
        grids = [view for own in views for view in own]
        features, summary = picture_features(self.vision_model, config.vision_features, pixels, tubelets, grids)
        if num_scales(config.geometry) > 1:
            features = merge_scales(features, maps, len(images), config.geometry)
            if summary is not None:  # of the first view, which shows the whole picture
                starts = torch.tensor([0, *(len(own) for own in views)]).cumsum(0)[:-1]
                summary = summary[starts.to(device)]
        projector = self.multi_modal_projector
        dtype = next(projector.parameters()).dtype
        summary = None if summary is None else summary.to(dtype)
        tokens = project(projector, config.projector_config, features.to(dtype), maps, summary)
        count = sum(self.tokens_per_picture(image_grid_hw))
        if not thws:
            return MediaTokens(tokens[:count], None, [], [])
        shapes = [(t, num_tokens(config.projector_config, h, w)) for t, h, w in thws]
        kept = self.tokens_per_picture(video_grid_thw, video_num_tokens)
        videos, numbers, counts = video_tokens(tokens[count:], shapes, config.video["temporal_pool"], kept)
        return MediaTokens(tokens[:count] if images else None, videos, numbers, counts)

    def encode_media(self, *args, **kwargs) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Features of all images and all videos `(tokens, D_llm)`; None for a kind that is not there.

        Args:
            pixel_values: (total_patches, C*P*P) in [0, 1], channel-major. image_grid_hw: (N, 2) patches of each
                feature map: an image, a tile of it, or (multi-scale) its last scale.
            pixel_values_videos: (total_patches, T*C*P*P), frame-major. video_grid_thw: (V, 3), t counts tubelets.
            video_num_tokens: (V,) tokens that stay of each video; default: all.
        """
        tokens = self.media_tokens(*args, **kwargs)
        return tokens.images, tokens.videos

    def get_image_features(self, pixel_values: torch.Tensor, image_grid_hw: torch.Tensor) -> torch.Tensor:
        """`(total_tokens, D_llm)` of images laid end to end; see `encode_media`."""
        return self.encode_media(pixel_values=pixel_values, image_grid_hw=image_grid_hw)[0]

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_grid_thw: torch.Tensor,
        video_num_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`(total_tokens, D_llm)` of videos laid end to end; see `encode_media`."""
        return self.encode_media(
            pixel_values_videos=pixel_values_videos, video_grid_thw=video_grid_thw, video_num_tokens=video_num_tokens
        )[1]

    def _idle_media(self) -> torch.Tensor:
        """Zero, computed through encoder and projector: a text-only training batch makes the same calls as others, so
        that every parameter gets a gradient and no rank waits."""
        side, vision = self.config.grid_multiple, self.config.vision_config
        pixels = torch.zeros(side * side, vision.patch_dim, device=self.vision_model.summary_idxs.device)
        if num_scales(self.config.geometry) == 1:
            features = self.get_image_features(pixels, torch.tensor([[side, side]]))
        else:  # the smallest map of an image has many views, a frame has one
            pixels = pixels.repeat(1, self.config.video["temporal_patch_size"])
            features = self.get_video_features(pixels, torch.tensor([[1, side, side]]))
        return features.sum() * 0.0
