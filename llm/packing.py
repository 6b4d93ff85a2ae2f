"""Packed samples: several whole samples laid end to end in one row, numbered by `seq_idx`, so that no position is
spent on padding. This file checks the numbers and turns them into what attention, scan and convolution need to keep
samples apart.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig


@dataclass(frozen=True)
class PackedBatch:
    """What a row layout means to a model.

    Attributes:
        seq_idx: (B, L) int32, one number a sample; padding has numbers of its own.
        position_ids: (B, L), restarting at every sample.
        lengths: Length of every sample of the batch laid end to end, row after row; sums to B * L.
        cu_seqlens: (S + 1,) int32, cumulative lengths, for varlen attention kernels.
    """

    seq_idx: torch.Tensor
    position_ids: torch.Tensor
    lengths: tuple[int, ...]
    cu_seqlens: torch.Tensor


def sample_starts(seq_idx: torch.Tensor) -> torch.Tensor:
    """(B, L) bool: position t is the first of its sample."""
    starts = torch.ones_like(seq_idx, dtype=torch.bool)
    starts[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    return starts


def check_seq_idx(seq_idx: torch.Tensor, shape: tuple[int, int]) -> None:
    """Raises ValueError unless `seq_idx` is an integer tensor of `shape` (B, L) that never decreases along a row."""
    if not isinstance(seq_idx, torch.Tensor) or seq_idx.dtype.is_floating_point or seq_idx.dtype == torch.bool:
        raise ValueError(f"seq_idx must be an integer tensor, got {getattr(seq_idx, 'dtype', type(seq_idx).__name__)}")
    if tuple(seq_idx.shape) != tuple(shape):
        raise ValueError(f"seq_idx has shape {tuple(seq_idx.shape)}, but the batch has shape {tuple(shape)} (B, L)")
    falls = seq_idx[:, 1:] < seq_idx[:, :-1]
    if falls.any():
        row, column = falls.nonzero()[0].tolist()
        before, after = seq_idx[row, column].item(), seq_idx[row, column + 1].item()
        raise ValueError(
            f"seq_idx decreases from {before} to {after} at row {row}, position {column + 1}: number the samples of a "
            "row upwards; padding at the end of a row gets the next number, or a 0 in attention_mask"
        )


def restarting_positions(starts: torch.Tensor) -> torch.Tensor:
    """(B, L) positions that count from 0 at every True of `starts`."""
    index = torch.arange(starts.shape[1], device=starts.device).expand(starts.shape)
    return index - torch.where(starts, index, 0).cummax(dim=1).values


def check_position_ids(position_ids: torch.Tensor, starts: torch.Tensor) -> None:
    """Raises ValueError where positions do not count up by one inside a sample."""
    rows, length = starts.shape
    if tuple(position_ids.shape) not in ((rows, length), (1, length)):
        raise ValueError(
            f"position_ids have shape {tuple(position_ids.shape)}, beside seq_idx they must be (B, L) = "
            f"{tuple(starts.shape)} or (1, L); leave them out to have them made from seq_idx"
        )
    position_ids = position_ids.expand(starts.shape)
    steps = position_ids[:, 1:] - position_ids[:, :-1]
    wrong = (steps != 1) & ~starts[:, 1:]
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"position_ids and seq_idx disagree at row {row}, position {column + 1}: position_ids restart or jump "
            "there, but seq_idx says it is the same sample; leave position_ids out to have them made from seq_idx"
        )


def pack_batch(
    seq_idx: torch.Tensor,
    shape: tuple[int, int],
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> PackedBatch:
    """Check `seq_idx` against the batch and prepare it.

    Args:
        seq_idx: (B, L) integers. shape: (B, L) of the batch.
        attention_mask: (B, L) with 0 at padding, or None. Padding becomes a sample of its own, which keeps it out of
            the others without any mask; give it the label -100.
        position_ids: (B, L) or None; checked to count up inside samples, then replaced: the prepared ones restart.
    """
    check_seq_idx(seq_idx, shape)
    starts = sample_starts(seq_idx)
    if attention_mask is not None:
        is_tensor = isinstance(attention_mask, torch.Tensor)
        found = tuple(attention_mask.shape) if is_tensor else type(attention_mask).__name__
        if found != tuple(shape):
            raise ValueError(
                f"seq_idx and attention_mask were both given: the mask must be (B, L) = {tuple(shape)} with 0 at "
                f"padding, got {found}"
            )
        starts |= sample_starts(attention_mask.bool().int())
    if position_ids is not None:
        check_position_ids(position_ids, starts)
    firsts = starts.flatten().nonzero().flatten()
    ends = torch.cat([firsts, firsts.new_tensor([starts.numel()])])
    return PackedBatch(
        seq_idx=(starts.cumsum(dim=1) - 1).to(torch.int32),
        position_ids=restarting_positions(starts),
        lengths=tuple(ends.diff().tolist()),
        cu_seqlens=ends.to(torch.int32),
    )


def check_limits(config: PreTrainedConfig, batch: PackedBatch) -> None:
    """Raises ValueError where a model of this configuration treats a packed sample otherwise than alone by its design.

    Chunked attention (Llama 4) cuts a row by index, not by position. Rotary frequencies of the types `dynamic` and
    `longrope` follow the longest sample of a batch once it is longer than the model was first trained for.
    """
    chunk = getattr(config, "attention_chunk_size", None)
    length = batch.seq_idx.shape[1]
    if chunk and length > chunk:
        raise ValueError(
            f"a packed row has {length} positions, but attention_chunk_size is {chunk}: chunks are cut by place in the "
            f"row, through samples; pack rows of at most {chunk}"
        )
    for rope in _rotary_settings(config):
        if rope.get("rope_type") not in ("dynamic", "longrope") or len(batch.lengths) == 1:
            continue
        limit = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        if max(batch.lengths) > limit:
            raise ValueError(
                f"a packed sample has {max(batch.lengths)} positions, but rotary positions of type "
                f"{rope['rope_type']!r} change for every sample of a batch once one is longer than {limit}: give "
                "longer samples a batch of their own"
            )


def _rotary_settings(config: PreTrainedConfig) -> list[dict]:
    """Rotary settings of a configuration: none, one, or one a layer type."""
    settings = getattr(config, "rope_parameters", None) or {}
    return [settings] if "rope_type" in settings else [part for part in settings.values() if isinstance(part, dict)]


def drop_first_targets(labels: torch.Tensor, seq_idx: torch.Tensor) -> torch.Tensor:
    """(B, L) labels without the first token of every sample: the position before it belongs to another sample."""
    return labels.masked_fill(sample_starts(seq_idx).to(labels.device), -100)
