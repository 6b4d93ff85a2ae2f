"""The balancing loss of mixture-of-experts routers (Switch Transformer, arXiv 2101.03961 eq. 4-6), taken from the
family's own module so that the numbers are transformers'.
"""

import sys

import torch
from torch import nn
from transformers import PreTrainedConfig


def wants_router_logits(config: PreTrainedConfig) -> dict:
    """The base model collects router logits only when asked."""
    return {"output_router_logits": True} if getattr(config, "output_router_logits", False) else {}


def weighted_router_loss(model: nn.Module, outputs, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """`router_aux_loss_coef` times the balancing loss; None where neither config nor call asked for it."""
    config = model.config
    logits = outputs.get("router_logits")
    if not logits:
        return None
    balance = sys.modules[type(model).__module__].load_balancing_loss_func
    experts = getattr(config, "num_experts", None) or config.num_local_experts
    return config.router_aux_loss_coef * balance(logits, experts, config.num_experts_per_tok, attention_mask)
