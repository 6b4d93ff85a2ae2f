"""Held-out loss of a model over dataset folders: summed over labelled tokens, over samples, over ranks."""

import math

import torch
from torch import nn

from training.callbacks import all_ranks


def labelled_tokens(labels: torch.Tensor) -> torch.Tensor:
    """Number of positions whose next token is a label, shape () (causal shift: the first label is never predicted)."""
    return labels[..., 1:].ne(-100).sum()


@torch.no_grad()
def heldout_loss(
    model: nn.Module, datasets: dict[str, list], collate, batch_size: int, rank: int, world_size: int,
    device: torch.device,
) -> dict:  # fmt: skip
    """Mean loss a labelled token, in all and per source.

    Args:
        datasets: source name -> encoded samples, the same list on every rank; rank r takes samples r, r + world_size, …
        collate: list of encoded samples -> batch.

    Every rank runs the same number of forward passes (under ZeRO-3 the ranks gather weights together), so a rank that
    has run out repeats a sample with weight zero.
    """
    was_training = model.training
    model.eval()
    result, total = {}, torch.zeros(2, dtype=torch.float64, device=device)
    for name, samples in datasets.items():
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        mine = list(range(rank, len(samples), world_size))
        passes = math.ceil(len(range(0, len(samples), world_size)) / batch_size)  # as many as rank 0, which has most
        for index in range(passes):
            chosen = mine[index * batch_size : (index + 1) * batch_size]
            batch = collate([samples[i] for i in chosen] or [samples[0]])
            batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
            tokens = labelled_tokens(batch["labels"]) * bool(chosen)
            loss = model(**batch).loss
            sums += torch.stack([loss.double().nan_to_num() * tokens, tokens.double()])
        all_ranks(sums)
        total += sums
        result[name] = {"loss": _mean(sums), "tokens": int(sums[1]), "samples": len(samples)}
    model.train(was_training)
    return {"loss": _mean(total), "tokens": int(total[1]), "sources": result}


def _mean(sums: torch.Tensor) -> float:
    return (sums[0] / sums[1].clamp(min=1)).item()
