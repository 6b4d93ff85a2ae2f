"""What counts alike in the loss: tokens, samples or turns, by weights that are made from the labels of a batch.

The model divides the weighted sum of its token losses by the weights of all micro-batches and ranks of a step, so how
samples are spread over ranks, micro-batches, rows and packs changes neither loss nor gradient.
"""

import torch

from llm.packing import sample_starts
from llm.turn_weights import sqrt_turn_weights

IGNORED = -100


def target_mask(labels: torch.Tensor, seq_idx: torch.Tensor | None = None) -> torch.Tensor:
    """(B, L) bool: labels that are learned. The first token of a row or packed sample is no target: nothing stands
    before it."""
    mask = labels != IGNORED
    mask[:, :1] = False
    return mask if seq_idx is None else mask & ~sample_starts(seq_idx)


def sample_numbers(batch: dict) -> torch.Tensor:
    """(B, L) number of the sample of each position in the order of the batch's `sample_ids`: rows, or packed samples
    counted over all rows. Padding carries the number of the sample before it."""
    ids, seq_idx = batch["input_ids"], batch.get("seq_idx")
    if seq_idx is None:
        return torch.arange(len(ids), device=ids.device)[:, None].expand(ids.shape)
    starts, mask = sample_starts(seq_idx), batch.get("attention_mask")
    if mask is not None:
        starts = starts & mask.bool()
    return (starts.flatten().cumsum(0) - 1).clamp(min=0).view(ids.shape)


def token_weights(batch: dict, average: str) -> torch.Tensor | None:
    """(B, L) fp32 weight of each label, 0 where there is no target; None where every target counts 1.

    Args:
        batch: `labels` (B, L) and, packed, `seq_idx` (B, L).
        average: `token`: every target counts 1. `sample`: a sample's targets count 1 together. `turn`: a run of n
            targets counts sqrt(n) together (Nemotron VL's loss scaling).
    """
    if average == "token":
        return None
    labels, seq_idx = batch["labels"], batch.get("seq_idx")
    if average == "turn":
        return sqrt_turn_weights(labels, seq_idx)
    targets, numbers = target_mask(labels, seq_idx), sample_numbers(batch).flatten()
    counts = torch.zeros(int(numbers.max()) + 1, device=labels.device)
    counts.index_add_(0, numbers, targets.flatten().float())
    return torch.where(targets, 1 / counts.clamp(min=1)[numbers].view(labels.shape), 0.0)


def loss_weight(batch: dict) -> torch.Tensor:
    """() what a batch adds to the divisor of the loss: its targets, or their `token_weights` where it has some."""
    if batch.get("token_weights") is not None:
        return batch["token_weights"].sum(dtype=torch.float64).float()
    return target_mask(batch["labels"], batch.get("seq_idx")).sum()
