"""Faster training of NemotronH on machines without Mamba kernels: one visible call, ``use_fast_scan(language_model)``,
gives every Mamba mixer a forward that uses ``llm.ssd_scan`` and a shift-and-add convolution. It acts only while no
cache is in use; weights, names, generation and the saved checkpoint stay as they are. Also keeps packed samples apart
(``seq_idx``), which the PyTorch path of transformers refuses.
"""

import types

import torch

from llm.causal_conv import causal_conv
from llm.ssd_scan import ssd_scan


def _fast_forward(self, hidden_states, cache_params=None, attention_mask=None, **kwargs):
    """Forward of a NemotronH Mamba mixer without a cache; with one, the original forward runs."""
    if cache_params is not None:
        return self.slow_forward(hidden_states, cache_params=cache_params, attention_mask=attention_mask, **kwargs)
    seq_idx = kwargs.get("seq_idx")
    batch, length, _ = hidden_states.shape
    dtype = hidden_states.dtype
    mask = attention_mask.unsqueeze(-1).to(dtype) if attention_mask is not None else None
    if mask is not None:
        hidden_states = hidden_states * mask
    gate, conv_in, dt = self.in_proj(hidden_states).split([self.intermediate_size, self.conv_dim, self.num_heads], -1)
    conv_out = self.act(causal_conv(conv_in, self.conv1d.weight.squeeze(1), self.conv1d.bias, seq_idx))
    if mask is not None:
        conv_out = conv_out * mask
    width = self.n_groups * self.ssm_state_size
    x, B, C = conv_out.split([self.intermediate_size, width, width], -1)
    y, _ = ssd_scan(
        x.view(batch, length, self.num_heads, self.head_dim),
        dt,
        -torch.exp(self.A_log.float()),
        B.view(batch, length, self.n_groups, self.ssm_state_size),
        C.view(batch, length, self.n_groups, self.ssm_state_size),
        chunk_size=self.chunk_size,
        D=self.D,
        dt_bias=self.dt_bias,
        dt_softplus=True,
        dt_limit=self.time_step_limit,
        seq_idx=seq_idx,
    )
    y = self.norm(y.reshape(batch, length, -1), gate)
    return self.out_proj(y.to(dtype))


def use_fast_scan(language_model: torch.nn.Module) -> int:
    """Swap the scan inside every NemotronH Mamba mixer of ``language_model`` (in place); returns how many were found.

    A model of another family is left alone (returns 0). Calling it twice changes nothing. ``undo_fast_scan`` takes it
    back. The swap lives on the module objects only, so ``save_pretrained`` writes an ordinary checkpoint.
    """
    found = 0
    for module in language_model.modules():
        if type(module).__name__ != "NemotronHMamba2Mixer":
            continue
        found += 1
        if not hasattr(module, "slow_forward"):
            module.slow_forward = module.forward
            module.forward = types.MethodType(_fast_forward, module)
    return found


def undo_fast_scan(language_model: torch.nn.Module) -> None:
    """Give every mixer its own forward back."""
    for module in language_model.modules():
        if "slow_forward" in module.__dict__:
            del module.__dict__["slow_forward"], module.__dict__["forward"]
