"""Llama: a plain Transformer."""

from transformers import LlamaConfig

from llm.family import LLMFamily, register_family


def tiny() -> LlamaConfig:
    """Two layers, grouped-query attention."""
    return LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.1,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="llama",
        title="Llama",
        kind="Transformer",
        packing="attention sample by sample",
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        block_classes=("LlamaDecoderLayer",),
        kernels=("flash_attention_2",),
        turn_template="llama3",
        tiny=tiny,
    )
)
