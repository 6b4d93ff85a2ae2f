"""From projected frames to a video's tokens: averaging of neighbouring frames, then pruning of what did not change.

Averaging is that of NVILA (arXiv 2412.04468): the mean over `temporal_pool` frames at each place; the last run may be
shorter. Pruning is `vlm.evs`. Both compare places over time, so the projector must keep places.
"""

from dataclasses import dataclass

import torch

from vlm.evs import retention_mask


@dataclass
class MediaTokens:
    """What encoder and projector made of a batch's media.

    Attributes:
        images, videos: (N, D) tokens laid end to end; None where there are none of the kind.
        num_video_tokens: tokens of each video.
        group_counts: for each video the tokens that stayed of each of its groups; None: all of them.
    """

    images: torch.Tensor | None
    videos: torch.Tensor | None
    num_video_tokens: list[int]
    group_counts: list[torch.Tensor | None]

    @property
    def joined(self) -> torch.Tensor:
        """(N, D): tokens of all images, then of all videos."""
        return torch.cat([part for part in (self.images, self.videos) if part is not None])


def pool_frames(tokens: torch.Tensor, pool: int) -> torch.Tensor:
    """`(T, N, D)` -> `(ceil(T / pool), N, D)`: the mean of each run of `pool` frames, in float32."""
    if pool == 1:
        return tokens
    full = len(tokens) // pool * pool
    parts = [tokens[:full].float().unflatten(0, (-1, pool)).mean(1)] if full else []
    if full < len(tokens):
        parts.append(tokens[full:].float().mean(0, keepdim=True))
    return torch.cat(parts).to(tokens.dtype)


def video_tokens(
    tokens: torch.Tensor, shapes: list[tuple[int, int]], pool: int, kept: list[int] | None = None
) -> tuple[torch.Tensor, list[int], list[torch.Tensor | None]]:
    """Tokens of videos laid end to end, averaged and pruned.

    Args:
        tokens: (sum of frames * per_frame, D).
        shapes: (frames, per_frame) of each video.
        pool: `video["temporal_pool"]`.
        kept: How many tokens of each video stay; None: all.

    Returns:
        (total, D) tokens, their number of each video, and group counts as in `MediaTokens`.
    """
    parts, numbers, counts = [], [], []
    sizes = [frames * per_frame for frames, per_frame in shapes]
    for i, (own, (frames, per_frame)) in enumerate(zip(tokens.split(sizes), shapes)):
        groups = pool_frames(own.view(frames, per_frame, -1), pool)
        keep = groups.shape[0] * per_frame if kept is None else kept[i]
        if keep == groups.shape[0] * per_frame:
            parts.append(groups.flatten(0, 1))
            counts.append(None)
        else:
            mask = retention_mask(groups, keep)
            parts.append(groups[mask])
            counts.append(mask.sum(-1))
        numbers.append(keep)
    return torch.cat(parts), numbers, counts
