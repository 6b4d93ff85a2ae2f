"""IBM Bamba: Mamba-2 or attention, then an MLP, in every layer; a z-loss on the logits."""

import torch
from transformers import BambaConfig

from llm.family import LLMFamily, register_family
from llm.mamba2_mixer import PackedMamba2
from llm.mixer_convolution import LORA_REFUSED


class BambaPositions:
    """transformers' base model numbers positions from 0 also behind cached tokens (`generate` is spared: it gives
    them)."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        """As the model of transformers."""
        if position_ids is None and past_key_values is not None:
            first = input_ids if input_ids is not None else kwargs["inputs_embeds"]
            seen = past_key_values.get_seq_length()
            position_ids = torch.arange(seen, seen + first.shape[1], device=first.device)[None]
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )


def tiny() -> BambaConfig:
    """Three layers, one of them attention, with a z-loss."""
    return BambaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=16, mamba_n_groups=2,
        mamba_d_state=16, mamba_chunk_size=64, z_loss_coefficient=0.01, max_position_embeddings=2048,
        initializer_range=0.1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="bamba",
        title="Bamba",
        kind="hybrid Mamba-2",
        packing="attention sample by sample; scan and convolution by seq_idx",
        swaps={"BambaMixer": PackedMamba2, "BambaModel": BambaPositions},
        lora_targets=(
            "in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ),
        lora_refused=LORA_REFUSED,
        block_classes=("BambaDecoderLayer",),
        kernels=("mamba_chunk_scan", "causal_conv1d", "flash_attention_2"),
        z_loss=lambda config: float(config.z_loss_coefficient or 0.0),
        loss_extras="z-loss (z_loss_coefficient)",
        tiny=tiny,
    )
)  # fmt: skip
