"""Token weights under which an answer of n tokens counts as sqrt(n), neither n (long answers rule) nor 1 (short ones
do): what Nemotron VL calls loss scaling, as one argument of ``linear_cross_entropy``.
"""

import torch

IGNORED = -100


def sqrt_turn_weights(
    labels: torch.Tensor, seq_idx: torch.Tensor | None = None, shifted: bool = False
) -> torch.Tensor:
    """Weights with which the weighted mean is ``sum_i mean(loss_i) * sqrt(n_i) / sum_i sqrt(n_i)`` over turns i.

    A turn is a run of targets within a row; n_i is its length. Each of its tokens weighs 1 / sqrt(n_i), so that a
    turn's weights sum to sqrt(n_i) and the weighted mean needs no further division.

    Args:
        labels: (..., L) integers as a model takes them, -100 where there is nothing to learn. The first token of a row
            or of a packed sample is no target (nothing stands before it) and does not count.
        seq_idx: (..., L), equal inside one packed sample; cuts runs where samples touch.
        shifted: labels stand beside the hidden states that predict them, as ``linear_cross_entropy`` takes them: every
            label other than -100 is a target.

    Returns:
        (..., L) fp32, 0 at ignored positions.
    """
    if seq_idx is not None and seq_idx.shape != labels.shape:
        raise ValueError(f"seq_idx {tuple(seq_idx.shape)} must have the shape of labels {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are token ids, of an integer dtype, not {labels.dtype}")
    labelled = labels != IGNORED
    if not shifted:
        labelled[..., :1] = False
        if seq_idx is not None:
            labelled[..., 1:] &= seq_idx[..., :-1] == seq_idx[..., 1:]
    starts = labelled.clone()
    continues = labelled[..., :-1]
    if seq_idx is not None:
        continues = continues & (seq_idx[..., :-1] == seq_idx[..., 1:])
    starts[..., 1:] &= ~continues
    turn = starts.flatten().cumsum(0)  # 1, 2, ...; an ignored position has the number of the turn before it
    lengths = turn.new_zeros(turn.numel() + 1)
    lengths.scatter_add_(0, turn, labelled.flatten().to(turn.dtype))
    weights = lengths[turn].float().rsqrt().view(labels.shape)
    return torch.where(labelled, weights, 0.0)
