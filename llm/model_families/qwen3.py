"""Qwen3: a plain Transformer."""

from transformers import Qwen3Config

from llm.family import LLMFamily, register_family


def tiny() -> Qwen3Config:
    """Two layers, grouped-query attention."""
    return Qwen3Config(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.1,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="qwen3",
        title="Qwen3",
        kind="Transformer",
        packing="attention sample by sample",
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        block_classes=("Qwen3DecoderLayer",),
        kernels=("flash_attention_2",),
        turn_template="chatml",
        tiny=tiny,
    )
)
