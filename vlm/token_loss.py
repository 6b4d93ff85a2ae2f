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
    logits: torch.Tensor, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross entropy of `(N, V)` logits and `(N,)` targets: the sum over `num_items_in_batch`, or the mean.

    N may be 0 (a batch without labels): the loss is 0 and still reaches every parameter.
    """
    total = F.cross_entropy(logits.float(), targets, reduction="sum")
    if num_items_in_batch is None:
        return total / max(targets.numel(), 1)
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return total / num_items_in_batch


def loss_and_outputs(
    language_model: PreTrainedModel,
    labels: torch.Tensor,
    inputs: dict,
    num_items_in_batch: torch.Tensor | int | None = None,
    logits_to_keep: int | torch.Tensor | None = None,
):
    """Run the language model once and return `(loss, outputs, logits or None)`.

    Args:
        labels: (B, L), -100 where there is nothing to learn; shifted here.
        inputs: keyword arguments of the language model, without labels.
        logits_to_keep: as in transformers; None makes no logits beyond those the loss needs.
    """
    if getattr(language_model, "skips_logits", False):  # prepared by `llm.prepare`: it knows the head and packed rows
        inputs = {name: value for name, value in inputs.items() if name != "skip_logits"}  # decided here
        options = {"labels": labels, "num_items_in_batch": num_items_in_batch, "skip_logits": logits_to_keep is None}
        outputs = language_model(**inputs, **options, logits_to_keep=0 if logits_to_keep is None else logits_to_keep)
        return outputs.loss, outputs, outputs.logits
    rows = labelled_rows(labels)
    targets = labels[:, 1:][rows]
    if has_plain_head(language_model):
        outputs = getattr(language_model, language_model.base_model_prefix)(**inputs)
        hidden, head = outputs.last_hidden_state, language_model.get_output_embeddings()
        loss = token_loss(head(hidden[:, :-1][rows]), targets, num_items_in_batch)
        return loss, outputs, None if logits_to_keep is None else head(slice_positions(hidden, logits_to_keep))
    if logits_to_keep is None and accepts(language_model, "logits_to_keep"):
        # Heads that do more than a matrix product: let the model itself make the logits of the columns any row needs.
        columns = rows.any(dim=0).nonzero().flatten()
        outputs = language_model(**inputs, logits_to_keep=columns)
        logits = outputs.logits[rows[:, columns]]
        return token_loss(logits, targets, num_items_in_batch), outputs, None
    outputs = language_model(**inputs)
    loss = token_loss(outputs.logits[:, :-1][rows], targets, num_items_in_batch)
    return loss, outputs, None if logits_to_keep is None else slice_positions(outputs.logits, logits_to_keep)


def slice_positions(x: torch.Tensor, keep: int | torch.Tensor) -> torch.Tensor:
    """The last `keep` positions of `(B, L, ...)` (0: all of them), or those a 1-D index names."""
    if isinstance(keep, int):
        return x[:, -keep:] if keep else x
    return x[:, keep]
