"""IBM Bamba: Mamba-2 or attention, then an MLP, in every layer; a z-loss on the logits."""

from transformers import BambaConfig

from llm.family import LLMFamily, register_family
from llm.mamba2_mixer import PackedMamba2


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
        swaps={"BambaMixer": PackedMamba2},
        lora_targets=(
            "in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ),
        lora_refused={"conv1d": "the convolution is applied through its weight, never through its module"},
        block_classes=("BambaDecoderLayer",),
        kernels=("mamba_chunk_scan", "causal_conv1d", "flash_attention_2"),
        z_loss=lambda config: float(config.z_loss_coefficient or 0.0),
        loss_extras="z-loss (z_loss_coefficient)",
        tiny=tiny,
    )
)  # fmt: skip
