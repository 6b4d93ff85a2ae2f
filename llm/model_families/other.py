"""Any other causal language model of transformers: trained, adapted and sharded by what its class declares; packed only
after a proof on the model itself that no path leads from one sample to the next.
"""

from llm.family import LLMFamily, register_family

OTHER = register_family(
    LLMFamily(
        model_type="",
        title="any other causal LM",
        kind="unknown",
        packing="attention by position_ids, after a proof on the model itself",
        packing_needs_proof=True,
        lora_targets=(),
        notes="LoRA: every linear layer but the head; blocks: `_no_split_modules` of its class",
    )
)
