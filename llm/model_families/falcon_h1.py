"""TII Falcon-H1: Mamba-2 and attention side by side in every layer, with fixed (muP) multipliers on nearly everything,
the embeddings and the logits included.
"""

import torch
import torch.nn.functional as F
from transformers import FalconH1Config

from llm.family import LLMFamily, register_family
from llm.mamba2_mixer import PackedMamba2
from llm.mixer_convolution import LORA_REFUSED


class FalconH1Mixer(PackedMamba2):
    """Multipliers around the input projection; the gated norm is optional."""

    def project_in(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.in_proj(hidden_states * self.ssm_in_multiplier) * self.mup_vector

    def gate_output(self, y: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return self.norm(y, gate) if self.mamba_rms_norm else y * F.silu(gate)


def tiny() -> FalconH1Config:
    """Two layers, every multiplier different from 1."""
    return FalconH1Config(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, mamba_d_ssm=128, mamba_n_heads=8, mamba_d_head=16, mamba_n_groups=2, mamba_d_state=16,
        mamba_chunk_size=64, lm_head_multiplier=0.7, embedding_multiplier=1.6, mlp_multipliers=[0.9, 1.2],
        key_multiplier=0.8, attention_out_multiplier=1.1, attention_in_multiplier=0.9, mamba_rms_norm=True,
        ssm_multipliers=[0.9, 1.1, 1.2, 0.8, 1.3], ssm_in_multiplier=1.2, ssm_out_multiplier=0.9,
        max_position_embeddings=2048, initializer_range=0.1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="falcon_h1",
        title="Falcon-H1",
        kind="parallel Mamba-2 and attention",
        packing="attention sample by sample; scan and convolution by seq_idx",
        swaps={"FalconH1Mixer": FalconH1Mixer},
        lora_targets=(
            "in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ),
        lora_refused=LORA_REFUSED,
        block_classes=("FalconH1DecoderLayer",),
        kernels=("mamba_chunk_scan", "causal_conv1d", "flash_attention_2"),
        logit_scale=lambda config: float(config.lm_head_multiplier or 1.0),
        embedding_scale=lambda config: float(config.embedding_multiplier or 1.0),
        loss_extras="logits × lm_head_multiplier; inputs_embeds × embedding_multiplier",
        turn_template="chatml",
        tiny=tiny,
    )
)  # fmt: skip
