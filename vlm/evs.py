"""Efficient Video Sampling: of a video's projected tokens only those that changed since the frame before are kept.

NVIDIA's EVS (arXiv 2510.14624), without training: how many tokens stay is known from the sizes alone, so the processor
can write that many placeholders; which ones stay is decided by the features. The first frame always stays whole.
"""

import torch
import torch.nn.functional as F

from projectors.components import keeps_places

FIRST_FRAME = 255.0  # above every dissimilarity, which lies in [0, 2]


def check_pruning_rate(rate: float) -> float:
    """`rate` as a float; ValueError unless it is in [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ValueError(f"pruning_rate={rate!r} must be a share of video tokens in [0, 1)")
    return float(rate)


def check_places(projector_config: dict, rate: float, pool: int) -> None:
    """Raise ValueError when frames would be compared or averaged whose tokens stand for no fixed places."""
    if (rate or pool > 1) and not keeps_places(projector_config):
        setting = f"video['pruning_rate']={rate}" if rate else f"video['temporal_pool']={pool}"
        raise ValueError(
            f"{setting} and projector_config['type']={projector_config['type']!r} do not go together: its tokens stand "
            "for other places in every frame; choose another projector, or 0 and 1 for both video settings"
        )


def kept_tokens(groups: int, per_group: int, rate: float) -> int:
    """How many of `groups * per_group` tokens of one video stay: `1 - rate` of them, but at least one whole frame.

    Args:
        groups: Frames, tubelets or averaged runs of frames, each of `per_group` tokens.
    """
    return max(per_group, int(groups * per_group * (1 - rate))) if rate else groups * per_group


@torch.no_grad()
def dissimilarity(tokens: torch.Tensor) -> torch.Tensor:
    """`(T, N, D)` tokens of one video -> `(T, N)`: 1 - cosine with the token of the same place one frame earlier.

    The first frame has the value `FIRST_FRAME`, above all others. Computed in float32.
    """
    tokens = tokens.float()
    changed = 1 - F.cosine_similarity(tokens[1:], tokens[:-1], dim=-1)
    return torch.cat([changed.new_full((1, tokens.shape[1]), FIRST_FRAME), changed])


def retention_mask(tokens: torch.Tensor, keep: int) -> torch.Tensor:
    """Which tokens of one video stay.

    Args:
        tokens: (T, N, D) projected tokens, N a frame on whatever grid: no square is assumed.
        keep: How many stay, of `kept_tokens`; among equals the earlier one.

    Returns:
        (T, N) bool with exactly `keep` true entries.

    Raises:
        ValueError: `keep` is less than one frame or more than all tokens.
    """
    frames, per_frame = tokens.shape[:2]
    if not per_frame <= keep <= frames * per_frame:
        raise ValueError(
            f"{keep} tokens cannot stay of a video of {frames} frames with {per_frame} tokens each: at least one frame"
        )
    order = dissimilarity(tokens).flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(frames * per_frame, dtype=torch.bool, device=tokens.device)
    mask[order[:keep]] = True
    return mask.view(frames, per_frame)


def spread_tokens(groups: int, per_group: int, keep: int) -> list[int]:
    """A first guess of how `keep` tokens lie over the groups, for the prompt: the first whole, the rest evenly."""
    if groups == 1:
        return [keep]
    share, rest = divmod(keep - per_group, groups - 1)
    return [per_group] + [share + (i < rest) for i in range(groups - 1)]
