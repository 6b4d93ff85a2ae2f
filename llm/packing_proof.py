"""Whether an unknown language model may be packed: asked of the model itself. Rows of samples are packed exactly as in
training; the gradient of one sample's output with respect to all other embeddings must be exactly zero, which no path
through attention, state or convolution can be, and every packed output must be that of the sample alone.

What the proof cannot see is what happens only beyond its 140 positions, by index instead of by position; `check_limits`
of `llm.packing` knows the two cases of transformers (chunked attention, rotary frequencies that follow the longest).
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

_REASONS: WeakKeyDictionary = WeakKeyDictionary()  # model -> {attention implementation: None or reason}
_ROWS = ((70, 1, 44, 25), (100, 3, 37))  # sample lengths of two rows
_OBSERVED = 2  # the sample of each row whose output is asked what it depends on

logger = logging.getLogger(__name__)


def why_not_packed(model: nn.Module) -> str | None:
    """None where the proof holds; else the reason, in words that follow "cannot keep packed samples apart: ".

    Asked once for a model and an attention implementation: the question is slow, and weights do not change the answer.
    """
    known = _REASONS.setdefault(model, {})
    implementation = model.config._attn_implementation
    if implementation not in known:
        try:
            known[implementation] = _refutation(model)
        except Exception as error:  # any model of transformers, or of a hub: what it raises is not known
            known[implementation] = f"it failed when tried ({type(error).__name__}: {error})"
        logger.info("packing of %s: %s", type(model).__name__, known[implementation] or "proven")
    return known[implementation]


def _refutation(model: nn.Module) -> str | None:
    base, table = model.base_model, model.get_input_embeddings()
    if base is model or table is None:
        return "it has no base model below its head that could be asked"
    if table.weight.is_meta or table.weight.numel() == 0:
        return "it has no weights here to try it with (meta device or sharded); ask before sharding"
    missing = {"inputs_embeds", "position_ids"} - set(inspect.signature(base.forward).parameters)
    if missing:
        return f"{type(base).__name__} does not take {' and '.join(sorted(missing))}"
    device = table.weight.device
    seq_idx = torch.stack([torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in _ROWS]).to(device)
    ids = (torch.arange(seq_idx.numel(), device=device) * 7 % table.weight.shape[0]).view(seq_idx.shape)
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.inference_mode(False), _awake_and_frozen(base):
            embeds = table(ids).detach()
            for mode in (True, False):  # training may take another path; dropout can neither hide nor make one
                model.train(mode)
                reason = _path_between_samples(model, embeds, seq_idx)
                if reason is not None:
                    return reason
            return _unlike_alone(model, embeds, seq_idx)
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _awake_and_frozen(base: nn.Module) -> Iterator[None]:
    """Random values in parameters that are all zero, such as gates and the second half of an adapter (a path through
    them carries nothing yet, but will), no gradients in any parameter, and the random state as it was."""
    zero = [p for p in base.parameters() if p.numel() and p.is_floating_point() and not p.is_meta and not p.any()]
    trained = [p for p in base.parameters() if p.requires_grad]
    devices = {p.device for p in base.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            for parameter in zero:
                parameter.data.normal_(std=0.1)
            yield
        finally:
            for parameter in zero:
                parameter.data.zero_()
            for parameter in trained:
                parameter.requires_grad_(True)


def _hidden(model: nn.Module, embeds: torch.Tensor, seq_idx: torch.Tensor | None) -> torch.Tensor:
    """(B, L, D) output of the base model, packed as in training where `seq_idx` is given."""
    packed = {} if seq_idx is None else model.packed_arguments(seq_idx, embeds)[1]
    packed = {name: value for name, value in packed.items() if value is not None}
    return model.run_base(**{"inputs_embeds": embeds, "use_cache": False, **packed}).last_hidden_state


def _path_between_samples(model: nn.Module, embeds: torch.Tensor, seq_idx: torch.Tensor) -> str | None:
    embeds = embeds.clone().requires_grad_()
    observed = seq_idx == _OBSERVED
    with torch.enable_grad():
        hidden = _hidden(model, embeds, seq_idx)
        weights = torch.randn_like(hidden)
        (hidden * weights)[observed].sum().backward()
    if bool(embeds.grad[~observed].any()):
        return "the output of one sample depends on another"
    return None if bool(embeds.grad[observed].any()) else "its output depends on no embedding at all"


@torch.no_grad()
def _unlike_alone(model: nn.Module, embeds: torch.Tensor, seq_idx: torch.Tensor) -> str | None:
    packed = _hidden(model, embeds, seq_idx)
    tolerance = 1e-3 if embeds.dtype == torch.float32 else 5e-2
    for row, lengths in enumerate(_ROWS):
        for sample, found in zip(*(t[row : row + 1].split(lengths, dim=1) for t in (embeds, packed))):
            alone = _hidden(model, sample, None)
            if not (found - alone).abs().max() <= tolerance * alone.abs().max():
                return f"a sample of {sample.shape[1]} tokens gives another output in a packed row than alone"
    return None
