"""Zyphra Zamba2: Mamba-2 layers with one or two attention blocks shared by many layers."""

from torch import nn
from transformers import Zamba2Config

from llm.family import LLMFamily, register_family
from llm.mamba2_mixer import PackedMamba2
from llm.mixer_convolution import LORA_REFUSED


class Zamba2Mixer(PackedMamba2):
    """Its configuration knows `time_step_limit` only where a checkpoint wrote one; else transformers' limits stay."""

    @property
    def step_limits(self) -> tuple[float, float]:
        limits = getattr(self.config, "time_step_limit", None) or self.time_step_limit
        return tuple(float(limit) for limit in limits)


def share_blocks(model: nn.Module) -> None:
    """One module wherever transformers has several with the same tensors: else each would get an adapter of its own,
    and merging would add them all to the one weight.
    """
    blocks = {}
    for layer in model.modules():
        if type(layer).__name__ == "Zamba2HybridLayer":
            block = layer.shared_transformer
            layer.shared_transformer = blocks.setdefault(tuple(map(id, block.parameters())), block)


def tiny() -> Zamba2Config:
    """Four layers, two of them with the shared block."""
    return Zamba2Config(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, layers_block_type=["mamba", "hybrid", "mamba", "hybrid"], mamba_d_state=16,
        mamba_ngroups=2, n_mamba_heads=8, mamba_headdim=16, chunk_size=64, num_mem_blocks=1, adapter_rank=8,
        use_shared_attention_adapter=True, use_mem_rope=True, max_position_embeddings=2048, initializer_range=0.1,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="zamba2",
        title="Zamba2",
        kind="hybrid Mamba-2, shared attention",
        packing="attention sample by sample; scan and convolution by seq_idx",
        swaps={"Zamba2MambaMixer": Zamba2Mixer},
        arrange=share_blocks,
        lora_targets=("in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
        lora_refused=LORA_REFUSED,
        block_classes=("Zamba2HybridLayer", "Zamba2MambaDecoderLayer"),
        kernels=("mamba_chunk_scan", "causal_conv1d", "flash_attention_2"),
        tiny=tiny,
        notes="a LoRA adapter on a shared block acts wherever the block is used; it opens on a prepared model only",
    )
)
