"""IBM Granite 4: Mamba-2 or attention, then a shared MLP plus routed experts; logits are divided by a constant and the
router has a balancing loss.
"""

import torch
from transformers import GraniteMoeHybridConfig
from transformers.masking_utils import create_causal_mask

from llm.causal_lm import PackedCausalLM
from llm.family import LLMFamily, register_family
from llm.mamba2_mixer import PackedMamba2
from llm.mixer_convolution import LORA_REFUSED
from llm.router_loss import wants_router_logits, weighted_router_loss


class GraniteMoeHybridCausalLM(PackedCausalLM):
    """transformers makes this family's attention mask without `position_ids`: packed samples would see each other."""

    def run_base(self, **inputs):
        if inputs.get("seq_idx") is not None and inputs.get("attention_mask") is None:
            table = self.get_input_embeddings().weight
            like = torch.empty(*inputs["position_ids"].shape, 0, dtype=table.dtype, device=table.device)
            mask = create_causal_mask(self.config, like, None, None, position_ids=inputs["position_ids"])
            inputs["attention_mask"] = {"full_attention": mask, "linear_attention": None}
        return super().run_base(**inputs)


def tiny() -> GraniteMoeHybridConfig:
    """Three layers, one of them attention, four experts, every multiplier different from 1."""
    return GraniteMoeHybridConfig(
        vocab_size=96, hidden_size=64, intermediate_size=48, shared_intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, layer_types=["mamba", "attention", "mamba"],
        embedding_multiplier=1.6, logits_scaling=1.7, residual_multiplier=0.8, attention_multiplier=0.3,
        num_local_experts=4, num_experts_per_tok=2, output_router_logits=True, router_aux_loss_coef=0.02,
        position_embedding_type="rope", mamba_n_heads=8, mamba_d_head=16, mamba_n_groups=2, mamba_d_state=16,
        mamba_chunk_size=64, max_position_embeddings=2048, initializer_range=0.1, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="granitemoehybrid",
        title="Granite 4",
        kind="hybrid Mamba-2",
        packing="attention sample by sample; scan and convolution by seq_idx",
        swaps={"GraniteMoeHybridMambaLayer": PackedMamba2},
        causal_lm=GraniteMoeHybridCausalLM,
        lora_targets=("in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "input_linear", "output_linear"),
        lora_refused=LORA_REFUSED,
        block_classes=("GraniteMoeHybridDecoderLayer",),
        kernels=("mamba_chunk_scan", "causal_conv1d", "flash_attention_2"),
        logit_scale=lambda config: 1.0 / float(config.logits_scaling or 1.0),
        auxiliary_loss=weighted_router_loss,
        base_options=wants_router_logits,
        loss_extras="logits ÷ logits_scaling; router loss (router_aux_loss_coef)",
        turn_template="granite",
        tiny=tiny,
        notes="routed experts are fused tensors: LoRA leaves them and the router alone",
    )
)
