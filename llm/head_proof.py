"""Whether the loss of an unknown language model may be formed from hidden states and head alone, without all logits:
asked of the model itself. What its own class does beyond its record (a cap or factor on logits, a router or z-loss)
shows as a difference; then its own, full, loss is used.
"""

import logging
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F

_REASONS: WeakKeyDictionary = WeakKeyDictionary()  # model -> None or reason: the question is asked once
_LARGE = 40.0  # logits of a trained model; caps do not show in those of an untrained one

logger = logging.getLogger(__name__)


def why_loss_needs_logits(model: nn.Module) -> str | None:
    """None where `lm_head(hidden)` with the scale and cap of its record are the logits of the model's own class, and
    their shifted cross entropy is its loss; else the reason, in words that follow the name of the class."""
    if model not in _REASONS:
        try:
            _REASONS[model] = _difference(model)
        except Exception as error:  # any model of transformers, or of a hub: what it raises is not known
            _REASONS[model] = f"could not be checked without logits ({type(error).__name__}: {error})"
        if _REASONS[model] is not None:
            logger.warning("%s %s: its loss is formed from all logits", type(model).__name__, _REASONS[model])
    return _REASONS[model]


@torch.no_grad()
def _difference(model: nn.Module, length: int = 12) -> str | None:
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if model.base_model is model:
        return "has no base model below its head"
    if table.weight.is_meta or table.weight.numel() == 0:
        return "has no weights here (meta device or sharded)"
    ids = (torch.arange(length, device=table.weight.device) * 7 % table.weight.shape[0])[None]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        largest = head(model.run_base(input_ids=ids, use_cache=False).last_hidden_state).abs().max()
        enlarge = head.register_forward_hook(lambda module, args, logits: logits * (_LARGE / largest).to(logits.dtype))
        try:
            native = model.run_native(input_ids=ids, labels=ids, use_cache=False)
            ours = model.logits_of(model.run_base(input_ids=ids, use_cache=False).last_hidden_state)
        finally:
            enlarge.remove()
        plain = model.run_native(input_ids=ids, labels=ids, use_cache=False)
    finally:
        for module, mode in modes.items():
            module.training = mode
    tolerance = 1e-4 if native.logits.dtype == torch.float32 and table.weight.dtype == torch.float32 else 2e-2
    if not (native.logits - ours).abs().max() <= tolerance * ours.abs().max():
        return "changes its logits behind the head in a way that its record does not know"
    entropy = F.cross_entropy(plain.logits[0, :-1].float(), ids[0, 1:])
    if not (plain.loss - entropy).abs() <= 1e-4 * entropy:
        return "adds to the cross entropy what its record does not know"
    return None
