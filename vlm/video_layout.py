"""Where the placeholders of a pruned video stand: the processor guesses, the model moves them to their frames.

How many tokens of a video stay is known before the model runs, how many of each frame is not. So a row has its final
length from the start, and the model only moves placeholders between the places behind the frames' labels: `relayout`
says which old position each new one takes. The token before such a place carries the token type `OPENER`.
"""

import torch

from vlm.errors import SampleError
from vlm.video_tokens import MediaTokens

TEXT, IMAGE, VIDEO, OPENER = 0, 1, 2, 3


def thin_sample(sample: dict, full: list[list[int]], kept: list[list[int]]) -> dict:
    """An encoded sample whose videos have all their placeholders -> the same with fewer, openers of those marked.

    Args:
        sample: 1-D `input_ids`, `mm_token_type_ids` and, if given, `labels`; other keys pass through.
        full: For each video the placeholders of each of its groups, as they are now.
        kept: The same afterwards; at most `full`.

    Returns:
        The new sample, with `video_num_tokens` (V,).
    """
    types = sample["mm_token_type_ids"].clone()
    places = (types == VIDEO).nonzero()[:, 0]
    have = torch.tensor([count for video in full for count in video])
    want = torch.tensor([count for video in kept for count in video])
    if len(places) != int(have.sum()) or bool((want > have).any()):
        raise ValueError(f"{len(places)} video placeholders, expected {int(have.sum())}; kept: {want.tolist()}")
    starts = have.cumsum(0) - have
    rank = torch.arange(len(places)) - starts.repeat_interleave(have)
    stays = torch.ones(len(types), dtype=torch.bool)
    stays[places] = rank < want.repeat_interleave(have)
    group = 0
    for had, has in zip(full, kept, strict=True):
        before = places[starts[group : group + len(had)]] - 1
        group += len(had)
        # frames without a word between them are one run: there is nothing to move then, and nothing is marked
        if has != had and int(before.min()) >= 0 and bool((types[before] == TEXT).all()):
            types[before] = OPENER
    out = {**sample, "mm_token_type_ids": types[stays]}
    for key in ("input_ids", "labels"):
        if key in sample:
            out[key] = sample[key][stays]
    return {**out, "video_num_tokens": torch.tensor([sum(video) for video in kept])}


def relayout(token_types: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """`(B, L)` index of the old position that every new position takes, for rows whose video tokens were pruned.

    The order of everything but placeholders of pruned videos stays, and so does the order of these; behind the i-th
    opener of the batch stand `counts[i]` of them afterwards. Positions outside a video's span do not move.

    Args:
        token_types: (B, L): 0 text, 1 image (and whatever else stays in its place), 2 pruned video, 3 opener.
        counts: (groups,) tokens that stayed of each group of the pruned videos, row by row.

    Raises:
        ValueError: counts and openers differ in number, or a row would change its length.
    """
    opener, video = token_types == OPENER, token_types == VIDEO
    position = torch.arange(token_types.shape[1], device=token_types.device).expand_as(token_types)
    if not opener.any():  # no words between the frames
        return position.contiguous()
    if int(opener.sum()) != len(counts):
        raise ValueError(f"{len(counts)} groups of video tokens but {int(opener.sum())} places for them in the prompt")
    opened = torch.zeros_like(token_types)
    opened[opener] = counts.to(opened)
    if not torch.equal(opened.sum(-1), video.sum(-1)):
        raise ValueError("the groups of a row have other tokens in all than the row has video placeholders")
    word = ~video
    target = (word.long().cumsum(-1) - 1 + opened.cumsum(-1) - opened)[word]
    row = torch.arange(len(token_types), device=token_types.device)[:, None].expand_as(token_types)[word]
    order = torch.full_like(token_types, -1)
    order[row, target] = position[word]
    order[order < 0] = position[video]  # row by row, both sides in order
    return order


def pruned_order(token_types: torch.Tensor | None, tokens: MediaTokens) -> torch.Tensor | None:
    """`relayout` of a batch in which some videos were pruned; None where nothing has to move.

    Args:
        token_types: (B, L) of the processor, on any device.
    """
    pruned = [part is not None for part in tokens.group_counts]
    if not any(pruned):
        return None
    if token_types is None:
        message = "pruned videos need `mm_token_type_ids`: they say where frames stand"
        raise SampleError(message, reason="no_token_types")
    flags = torch.tensor(pruned).repeat_interleave(torch.tensor(tokens.num_video_tokens)).to(token_types.device)
    types = token_types.clone()
    types[token_types == VIDEO] = torch.where(flags, VIDEO, IMAGE).to(types)
    return relayout(types, torch.cat([part for part in tokens.group_counts if part is not None]).to(types))


def move(tensor: torch.Tensor | None, order: torch.Tensor) -> torch.Tensor | None:
    """A `(B, L)` or `(B, L, D)` tensor in the new order; None stays None.

    Raises:
        ValueError: anything else, such as an attention mask of another shape.
    """
    if tensor is None:
        return None
    shape = getattr(tensor, "shape", type(tensor).__name__)
    if not isinstance(tensor, torch.Tensor) or shape[:2] != order.shape or len(shape) > 3:
        raise ValueError(f"beside a pruned video, masks have the shape (B, L) = {tuple(order.shape)}, not {shape}")
    index = order.to(tensor.device)
    return tensor.gather(1, index if tensor.ndim == 2 else index[..., None].expand(-1, -1, tensor.shape[-1]))
