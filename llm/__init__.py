"""What training needs from a language model beyond transformers: families, packing, scans, losses, kernels, LoRA."""

from llm.family import LLMFamily, families, family_of
from llm.linear_cross_entropy import linear_cross_entropy
from llm.loading import load_language_model
from llm.lora import check_lora_gradients, lora_config
from llm.prepare import prepare_language_model, restore_language_model
from llm.ssd_scan import ssd_scan

__all__ = [
    "LLMFamily",
    "check_lora_gradients",
    "families",
    "family_of",
    "linear_cross_entropy",
    "load_language_model",
    "lora_config",
    "prepare_language_model",
    "restore_language_model",
    "ssd_scan",
]
