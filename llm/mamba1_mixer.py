"""The Mamba-1 mixer of Jamba with packed samples, an initial state (transformers' PyTorch scan starts every chunk of a
chunked prefill from zero) and the state in float32. It replaces the forward of transformers' mixer, see `llm.prepare`.
"""

import torch
import torch.nn.functional as F

from llm.kernels import kernel
from llm.mixer_convolution import convolve, mask_padding
from llm.selective_scan import selective_scan


class PackedJambaMamba:
    """Mixin over transformers' `JambaMambaMixer`."""

    def forward(
        self, hidden_states, cache_params=None, attention_mask=None, seq_idx=None, step_mask=None, **kwargs
    ):
        """(B, L, hidden) -> (B, L, hidden); arguments as those of `llm.mamba2_mixer.PackedMamba2.forward`."""
        dtype = hidden_states.dtype
        attention_mask = step_mask if attention_mask is None else attention_mask
        x, gate = self.in_proj(mask_padding(hidden_states, attention_mask)).chunk(2, dim=-1)
        x = convolve(self, x, seq_idx, cache_params, attention_mask)
        steps, B, C = self.x_proj(x).split([self.time_step_rank, self.ssm_state_size, self.ssm_state_size], dim=-1)
        dt = F.linear(self.dt_layernorm(steps), self.dt_proj.weight)  # its bias is added in float32 by the scan
        state = None if cache_params is None else cache_params.get_recurrent_state(self.layer_idx, state_idx=0)
        y, state = self.scan(
            x, dt, self.b_layernorm(B), self.c_layernorm(C), seq_idx, state, want_state=cache_params is not None
        )
        if cache_params is not None:
            cache_params.update_recurrent_state(state, self.layer_idx)
        return self.out_proj((y * F.silu(gate)).to(dtype))

    def scan(self, x, dt, B, C, seq_idx, state, want_state: bool):
        """mamba-ssm's kernel where it can do the job (no samples to keep apart, no state to start from), else ours."""
        A = -torch.exp(self.A_log.float())
        bias = None if self.dt_proj.bias is None else self.dt_proj.bias.float()
        fused = kernel("selective_scan", x.device) if seq_idx is None and state is None else None
        if fused is None:
            return selective_scan(
                x, dt, A, B, C, D=self.D, dt_bias=bias, dt_softplus=True, seq_idx=seq_idx, initial_states=state
            )
        x, dt, B, C = (t.transpose(1, 2).contiguous() for t in (x, dt, B, C))
        result = fused(x, dt, A, B, C, self.D.float(), None, bias, True, want_state)
        return (result[0].transpose(1, 2), result[1]) if want_state else (result.transpose(1, 2), None)
