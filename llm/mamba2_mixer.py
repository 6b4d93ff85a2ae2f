"""The Mamba-2 mixer that all hybrid families share: one readable forward for training, prefill, chunked prefill and
decoding. It replaces the forward of transformers' mixers (see `llm.prepare`; weights and names stay theirs) because
that one

* cannot keep packed samples apart without CUDA kernels, and leaks state and convolution silently in some families;
* forgets `time_step_limit` while decoding, so prefill + decode differs from one forward where a limit bites;
* lets padding reach the convolution when the input projection has a bias;
* skips `out_proj.forward` in its fused kernel, so LoRA and ZeRO-3 hooks do not fire there. This one never does.
"""

import torch

from llm.kernels import kernel
from llm.mixer_convolution import convolve, mask_padding
from llm.ssd_scan import ssd_scan


class PackedMamba2:
    """Mixin over a transformers Mamba-2 mixer; a family overrides the small methods."""

    @property
    def step_limits(self) -> tuple[float, float]:
        """Bounds of the step sizes after softplus."""
        limits = self.time_step_limit
        return (0.0, float("inf")) if limits is None else tuple(float(limit) for limit in limits)

    def project_in(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, L, hidden) -> (B, L, gate | x | B | C | dt)."""
        return self.in_proj(hidden_states)

    def gate_output(self, y: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Gated norm of the scan's output; both (B, L, inner)."""
        return self.norm(y, gate)

    def forward(
        self, hidden_states, cache_params=None, attention_mask=None, seq_idx=None, step_mask=None, **kwargs
    ):
        """(B, L, hidden) -> (B, L, hidden).

        Args:
            cache_params: transformers' cache; its states of this layer are read and written.
            attention_mask: (B, L) with 0 at padding, or None.
            seq_idx: (B, L) int32, equal inside one packed sample.
            step_mask: (B, 1), the mask of a single token, for which transformers gives no `attention_mask`.
        """
        batch, length, _ = hidden_states.shape
        dtype = hidden_states.dtype
        attention_mask = step_mask if attention_mask is None else attention_mask
        projected = self.project_in(mask_padding(hidden_states, attention_mask))
        gate, conv_in, dt = projected.split([self.intermediate_size, self.conv_dim, self.num_heads], dim=-1)

        conv_out = convolve(self, conv_in, seq_idx, cache_params, attention_mask)
        width = self.n_groups * self.ssm_state_size
        x, B, C = conv_out.split([self.intermediate_size, width, width], dim=-1)
        state = None if cache_params is None else cache_params.get_recurrent_state(self.layer_idx, state_idx=0)
        y, state = self.scan(
            x.view(batch, length, self.num_heads, self.head_dim),
            dt,
            B.view(batch, length, self.n_groups, self.ssm_state_size),
            C.view(batch, length, self.n_groups, self.ssm_state_size),
            seq_idx,
            state,
            want_state=cache_params is not None,
        )
        if cache_params is not None:
            cache_params.update_recurrent_state(state, layer_idx=self.layer_idx)
        y = self.gate_output(y.reshape(batch, length, -1), gate)
        return self.out_proj(y.to(dtype))

    def scan(self, x, dt, B, C, seq_idx, state, want_state: bool):
        """The state space scan: mamba-ssm's kernel on a GPU that has it, else `llm.ssd_scan`."""
        A = -torch.exp(self.A_log.float())
        options = {
            "D": self.D, "dt_bias": self.dt_bias, "dt_softplus": True, "dt_limit": self.step_limits,
            "seq_idx": seq_idx, "initial_states": state,
        }  # fmt: skip
        fused = kernel("mamba_chunk_scan", x.device)
        if fused is None:
            return ssd_scan(x, dt, A, B, C, self.chunk_size, **options)
        result = fused(x, dt, A, B, C, self.chunk_size, return_final_states=want_state, **options)
        return result if want_state else (result, None)
