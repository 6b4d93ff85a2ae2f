"""AI21 Jamba: Mamba-1 or attention, then an MLP or routed experts, in every layer; the router has a balancing loss."""

import torch
from transformers import JambaConfig

from llm.family import LLMFamily, register_family
from llm.mamba1_mixer import PackedJambaMamba
from llm.mixer_convolution import LORA_REFUSED
from llm.router_loss import wants_router_logits, weighted_router_loss


class JambaMambaLayer:
    """As the layer of transformers, but `seq_idx` and `step_mask` reach the mixer."""

    def forward(self, hidden_states: torch.Tensor, attention_mask=None, past_key_values=None, **kwargs):
        mixed = self.mamba(
            hidden_states=self.input_layernorm(hidden_states),
            cache_params=past_key_values,
            attention_mask=attention_mask,
            seq_idx=kwargs.get("seq_idx"),
            step_mask=kwargs.get("step_mask"),
        )
        hidden_states = hidden_states + mixed
        return hidden_states + self.feed_forward(self.pre_ff_layernorm(hidden_states))


def tiny() -> JambaConfig:
    """Four layers: one attention, one with experts in every two."""
    return JambaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, expert_layer_period=2, expert_layer_offset=1,
        attn_layer_period=4, attn_layer_offset=2, mamba_d_state=8, mamba_expand=2, mamba_dt_rank=8,
        output_router_logits=True, router_aux_loss_coef=0.02, max_position_embeddings=2048, initializer_range=0.1,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="jamba",
        title="Jamba",
        kind="hybrid Mamba-1",
        packing="attention sample by sample; scan and convolution by seq_idx (PyTorch scan)",
        swaps={"JambaMambaMixer": PackedJambaMamba, "JambaMambaDecoderLayer": JambaMambaLayer},
        lora_targets=(
            "in_proj", "x_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
            "down_proj",
        ),
        lora_refused={
            **LORA_REFUSED,
            "dt_proj": "it is applied through its weight, so that its bias is added in float32",
        },
        block_classes=("JambaAttentionDecoderLayer", "JambaMambaDecoderLayer"),
        kernels=("selective_scan", "causal_conv1d", "flash_attention_2"),
        auxiliary_loss=weighted_router_loss,
        base_options=wants_router_logits,
        loss_extras="router loss (router_aux_loss_coef)",
        tiny=tiny,
        notes="mamba-ssm's Mamba-1 kernel cannot reset its state: packed batches use the PyTorch scan",
    )
)  # fmt: skip
