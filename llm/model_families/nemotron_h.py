"""NVIDIA Nemotron-H, Nemotron Nano v2 and Nemotron 3: Mamba-2, a few attention layers without positions, MLP or MoE,
one mixer a block.
"""

from transformers import NemotronHConfig

from llm.family import LLMFamily, register_family
from llm.mamba2_mixer import PackedMamba2
from llm.mixer_convolution import LORA_REFUSED
from llm.pattern import check_pattern


class NemotronHMixer(PackedMamba2):
    """transformers 5.23 clamps the steps to `time_step_min`, an initialisation range (transformers#48989)."""

    @property
    def step_limits(self) -> tuple[float, float]:
        return tuple(float(limit) for limit in self.config.time_step_limit)


def tiny(pattern: str = "M*-ME") -> NemotronHConfig:
    """Five blocks with every kind of mixer."""
    return NemotronHConfig(
        hybrid_override_pattern=check_pattern(pattern), vocab_size=96, hidden_size=64, intermediate_size=96,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, mamba_num_heads=8, mamba_head_dim=16,
        ssm_state_size=16, n_groups=2, chunk_size=64, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=48, routed_scaling_factor=1.5, moe_shared_expert_intermediate_size=48,
        max_position_embeddings=2048, initializer_range=0.1, rescale_prenorm_residual=False, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="nemotron_h",
        title="Nemotron-H, Nemotron Nano v2, Nemotron 3",
        kind="hybrid Mamba-2",
        packing="attention sample by sample; scan and convolution by seq_idx",
        swaps={"NemotronHMamba2Mixer": NemotronHMixer},
        lora_targets=("in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
        lora_refused=LORA_REFUSED,
        block_classes=("NemotronHBlock",),
        kernels=("mamba_chunk_scan", "causal_conv1d", "flash_attention_2"),
        turn_template="nemotron-v2",
        tiny=tiny,
        notes="routed experts are fused tensors: LoRA leaves them and the router alone",
    )
)
