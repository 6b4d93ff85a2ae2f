"""The loss: token-mean cross entropy in float32, computed only on the rows that have a label.

Most positions of a VLM batch are pictures and questions; their logits (length x vocabulary x 4 bytes) are never made.
"""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from vlm.text_backbone import accepts, has_plain_head


def labelled_rows(labels: torch.Tensor) -> torch.Tensor:
    """`(B, L-1)` bool: position t predicts a labelled token t+1."""
    return labels[:, 1:] != -100


def token_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    weights: torch.Tensor | None = None,
    z_loss: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(loss, nll (N,) without gradient)` of `(N, V)` logits and `(N,)` targets.

    The loss is `sum(w * (nll + z_loss * logsumexp²))` over `num_items_in_batch`, or over `sum(w)`; w is `weights` (N,)
    or 1. N may be 0 (a batch without labels): the loss is 0 and still reaches every parameter.
    """
    logits = logits.float()
    nll = F.cross_entropy(logits, targets, reduction="none")
    value = nll + z_loss * logits.logsumexp(-1).square() if z_loss else nll
    total = value.sum() if weights is None else (weights.to(value) * value).sum()
    if num_items_in_batch is None:
        num_items_in_batch = targets.numel() if weights is None else weights.sum()
    count = torch.as_tensor(num_items_in_batch, device=total.device)
    return total / torch.where(count == 0, torch.ones_like(count), count), nll.detach()


def loss_and_outputs(
    language_model: PreTrainedModel,
    labels: torch.Tensor,
    inputs: dict,
    num_items_in_batch: torch.Tensor | int | None = None,
    logits_to_keep: int | torch.Tensor | None = None,
    token_weights: torch.Tensor | None = None,
    z_loss: float = 0.0,
    return_token_losses: bool = False,
):
    """Run the language model once and return `(loss, outputs, logits or None, token losses or None)`.

    Args:
        labels: (B, L), -100 where there is nothing to learn; shifted here.
        inputs: keyword arguments of the language model, without labels.
        logits_to_keep: as in transformers; None makes no logits beyond those the loss needs.
        token_weights: (B, L) weight of each label. z_loss, num_items_in_batch: see `token_loss`.
        return_token_losses: also the cross entropy of each label (B, L), at the label's place, 0 where there is none.
    """
    if getattr(language_model, "skips_logits", False):  # prepared by `llm.prepare`: it knows the head and packed rows
        inputs = {name: value for name, value in inputs.items() if name != "skip_logits"}  # decided here
        options = {"labels": labels, "num_items_in_batch": num_items_in_batch, "skip_logits": logits_to_keep is None}
        options |= {"token_weights": token_weights, "z_loss": z_loss, "return_token_losses": return_token_losses}
        outputs = language_model(**inputs, **options, logits_to_keep=0 if logits_to_keep is None else logits_to_keep)
        return outputs.loss, outputs, outputs.logits, outputs.get("token_losses")
    rows = labelled_rows(labels)
    targets = labels[:, 1:][rows]
    weights = None if token_weights is None else token_weights[:, 1:][rows]
    if has_plain_head(language_model):
        outputs = getattr(language_model, language_model.base_model_prefix)(**inputs)
        hidden, head = outputs.last_hidden_state, language_model.get_output_embeddings()
        needed = head(hidden[:, :-1][rows])
        logits = None if logits_to_keep is None else head(slice_positions(hidden, logits_to_keep))
    elif logits_to_keep is None and accepts(language_model, "logits_to_keep"):
        # Heads that do more than a matrix product: let the model itself make the logits of the columns any row needs.
        columns = rows.any(dim=0).nonzero().flatten()
        outputs = language_model(**inputs, logits_to_keep=columns)
        needed, logits = outputs.logits[rows[:, columns]], None
    else:
        outputs = language_model(**inputs)
        needed = outputs.logits[:, :-1][rows]
        logits = None if logits_to_keep is None else slice_positions(outputs.logits, logits_to_keep)
    loss, nll = token_loss(needed, targets, num_items_in_batch, weights, z_loss)
    each = None
    if return_token_losses:
        each = nll.new_zeros(labels.shape)
        each[:, 1:][rows] = nll
    return loss, outputs, logits, each


def slice_positions(x: torch.Tensor, keep: int | torch.Tensor) -> torch.Tensor:
    """The last `keep` positions of `(B, L, ...)` (0: all of them), or those a 1-D index names."""
    if isinstance(keep, int):
        return x[:, -keep:] if keep else x
    return x[:, keep]
