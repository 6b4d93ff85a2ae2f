"""Whether an unknown language model may be packed: asked of the model itself. Two short samples are packed, and the
gradient of the second one's output with respect to the first one's embeddings must be exactly zero, which no leak
through attention, state or convolution can be; and the packed output must be that of the sample alone.
"""

import inspect
from weakref import WeakKeyDictionary

import torch
from torch import nn

_RESULTS: WeakKeyDictionary = WeakKeyDictionary()  # model -> bool: the answer cannot change, the question is slow


def packing_is_proven(model: nn.Module) -> bool:
    """Run the proof once a model; False where it cannot be run (no weights yet, positions not accepted)."""
    if model not in _RESULTS:
        _RESULTS[model] = _prove(model)
    return _RESULTS[model]


def _prove(model: nn.Module, lengths: tuple[int, int] = (5, 7)) -> bool:
    base, table = model.base_model, model.get_input_embeddings()
    if base is model or table is None or table.weight.is_meta or table.weight.numel() == 0:
        return False
    if not {"inputs_embeds", "position_ids"} <= set(inspect.signature(base.forward).parameters):
        return False
    first, second = lengths
    ids = torch.arange(first + second, device=table.weight.device) * 7 % table.weight.shape[0]
    embeds = table(ids)[None].detach().requires_grad_()
    positions = torch.cat([torch.arange(first), torch.arange(second)])[None].to(ids.device)
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            packed = base(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state[:, first:]
            (grad,) = torch.autograd.grad(packed.float().square().sum(), embeds)
        with torch.no_grad():
            alone = base(inputs_embeds=embeds[:, first:], use_cache=False).last_hidden_state
    finally:
        model.train(training)
    tolerance = 1e-3 if embeds.dtype == torch.float32 else 5e-2
    same = (packed - alone).abs().max() <= tolerance * alone.abs().max()
    return bool(same) and not bool(grad[:, :first].any()) and bool(grad[:, first:].any())
