"""Mamba-2: no attention at all."""

from dataclasses import dataclass

import torch
from transformers import Cache, Mamba2Config
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import ModelOutput

from llm.causal_lm import PackedCausalLM
from llm.family import LLMFamily, register_family
from llm.mamba2_mixer import PackedMamba2
from llm.mixer_convolution import LORA_REFUSED


@dataclass
class Mamba2Output(ModelOutput):
    """transformers' output with the cache under both of its names."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    cache_params: Cache | None = None
    hidden_states: tuple[torch.Tensor] | None = None


class Mamba2CausalLM(PackedCausalLM):
    """transformers' forward names the cache differently and hands no keyword arguments to its layers."""

    def run_base(self, position_ids=None, past_key_values=None, cache_params=None, **inputs):
        cache = past_key_values if past_key_values is not None else cache_params
        outputs = self.backbone(cache_params=cache, **inputs)
        # float32 where `residual_in_fp32` (the default), whatever the weights are
        outputs.last_hidden_state = outputs.last_hidden_state.to(self.get_output_embeddings().weight.dtype)
        return outputs

    def run_native(self, labels=None, logits_to_keep=0, num_items_in_batch=None, return_dict=None, **inputs):
        outputs = self.run_base(**inputs, return_dict=True)
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)).float()
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch)
        cache = outputs.get("cache_params")
        if not (self.config.return_dict if return_dict is None else return_dict):
            return Mamba2Output(loss, logits, cache, None, outputs.hidden_states).to_tuple()
        return Mamba2Output(loss, logits, cache, cache, outputs.hidden_states)


def tiny() -> Mamba2Config:
    """Two layers."""
    return Mamba2Config(
        vocab_size=96, hidden_size=64, num_hidden_layers=2, num_heads=8, head_dim=16, state_size=16, n_groups=2,
        chunk_size=64, expand=2, initializer_range=0.1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


register_family(
    LLMFamily(
        model_type="mamba2",
        title="Mamba-2, Codestral Mamba",
        kind="Mamba-2",
        packing="scan and convolution by seq_idx",
        swaps={"Mamba2Mixer": PackedMamba2},
        causal_lm=Mamba2CausalLM,
        lora_targets=("in_proj", "out_proj"),
        lora_refused=LORA_REFUSED,
        block_classes=("Mamba2Block",),
        kernels=("mamba_chunk_scan", "causal_conv1d"),
        tiny=tiny,
    )
)
