"""Held-out loss of a model over dataset folders: summed over labelled tokens, over samples, over ranks."""

from collections.abc import Sequence

import torch
from torch import nn

from training.ranks import all_ranks


def labelled_tokens(labels: torch.Tensor) -> torch.Tensor:
    """Number of positions whose next token is a label, shape () (causal shift: the first label is never predicted)."""
    return labels[..., 1:].ne(-100).sum()


@torch.no_grad()
def heldout_loss(
    model: nn.Module, datasets: dict[str, Sequence], collate, batch_size: int, rank: int, world_size: int,
    device: torch.device,
) -> dict:  # fmt: skip
    """Mean loss a labelled token, in all and per source.

    Args:
        datasets: source name -> encoded samples, the same list on every rank; rank r takes samples r, r + world_size, …
        collate: list of encoded samples -> batch.

    Where weights are sharded (ZeRO-3) the ranks gather them together, layer by layer; there every rank runs the same
    batches, since one with text only would make fewer calls than its neighbours and block them.
    """
    sharded = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    if sharded:
        rank, world_size = 0, 1
    was_training = model.training
    model.eval()
    result, total = {}, torch.zeros(2, dtype=torch.float64, device=device)
    for name, samples in datasets.items():
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        mine = list(range(rank, len(samples), world_size))
        for start in range(0, len(mine), batch_size):
            batch = collate([samples[i] for i in mine[start : start + batch_size]])
            batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
            tokens = labelled_tokens(batch["labels"])
            loss = model(**batch).loss.double()
            # the mean over no tokens may be NaN and counts nothing; any other NaN is the model's and must be seen
            sums += torch.stack([torch.where(tokens > 0, loss * tokens, 0.0), tokens.double()])
        if not sharded:
            all_ranks(sums)
        total += sums
        result[name] = {"loss": _mean(sums), "tokens": int(sums[1]), "samples": len(samples)}
    model.train(was_training)
    return {"loss": _mean(total), "tokens": int(total[1]), "sources": result}


def _mean(sums: torch.Tensor) -> float:
    return (sums[0] / sums[1].clamp(min=1)).item()
