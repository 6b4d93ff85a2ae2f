"""Any other causal language model of transformers: trained, adapted and sharded by what its class declares; packed only
after a proof on the model itself that no path leads from one sample to the next.
"""

from transformers import PreTrainedConfig

from llm.family import LLMFamily, register_family


def logit_scale(config: PreTrainedConfig) -> float:
    """`logit_scale` of Cohere, `logits_scaling` of Granite; other names are noticed by `llm.head_proof`."""
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)


OTHER = register_family(
    LLMFamily(
        model_type="",
        title="any other causal LM",
        kind="unknown",
        packing="attention by position_ids, after a proof on the model itself",
        packing_needs_proof=True,
        lora_targets=(),
        logit_scale=logit_scale,
        softcap=lambda config: getattr(config, "final_logit_softcapping", None),
        loss_extras="checked on the model itself; where its class adds what is not known, its own loss",
        notes="LoRA: every linear layer but the head; blocks: `_no_split_modules` of its class",
    )
)
