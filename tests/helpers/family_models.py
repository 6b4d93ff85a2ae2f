"""Tiny language models in which every part matters, transformers' own beside the prepared one, and the ways to run them
that must agree: at once, in chunks through a cache, behind left padding.
"""

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from llm import families, load_language_model
from tests.helpers.tiny_llm import VOCABULARY, native_model

FAMILIES = sorted(families())
HYBRIDS = [name for name in FAMILIES if families()[name].swaps]  # they have a state
BIASES = {  # options of the configuration that give the projections biases
    "bamba": ("mamba_proj_bias", "attention_bias", "mlp_bias"),
    "falcon_h1": ("mamba_proj_bias", "attention_bias", "mlp_bias", "projectors_bias"),
    "granitemoehybrid": ("mamba_proj_bias", "attention_bias"),
    "jamba": ("mamba_proj_bias",),
    "mamba2": ("use_bias",),
    "nemotron_h": ("use_bias", "attention_bias", "mlp_bias"),
    "zamba2": ("add_bias_linear",),
}


@torch.no_grad()
def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw what initialisation leaves at fixed values (biases, norms, D, A_log) and make the steps large, so that an
    error in any of them, a state that is lost, or a second initialisation shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("dt_bias"):
            parameter.copy_(noise - 1.5)  # steps from 0.02 to 1: states that reach far and states that do not
        elif name.endswith("dt_proj.bias"):
            parameter.copy_(0.5 * noise - 2)  # Jamba's norms amplify rounding: with the steps above 1.6e-5 in fp32
        elif name.endswith("conv1d.weight"):
            parameter.copy_(0.4 * noise)
        elif name.endswith((".bias", ".A_log", ".D")) or "norm" in name:
            parameter.add_(0.3 * noise)
    return model


def native_and_prepared(name: str, config: PreTrainedConfig | None = None) -> tuple[PreTrainedModel, PreTrainedModel]:
    """transformers' model, with the step limits of its configuration where it has others, and one opened from the
    configuration that took over its weights."""
    native = enliven(native_model(name if config is None else config))
    model = load_language_model(native.config).eval()
    model.load_state_dict(native.state_dict())
    limits = getattr(native.config, "time_step_limit", None)
    for module in native.modules():
        if limits is not None and hasattr(module, "time_step_limit"):
            module.time_step_limit = tuple(limits)
    return native, model


def with_biases(name: str) -> PreTrainedConfig:
    """The family's tiny configuration with every bias its projections can have."""
    config = families()[name].tiny()
    for option in BIASES[name]:
        assert getattr(config, option) is False
        setattr(config, option, True)
    return config


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """(batch, length) ids without the special ones."""
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def left_padded(ids: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, L) ids and (B, L) attention mask: row i is the first `lengths[i]` of `ids[i]` behind padding of id 0."""
    width = max(lengths)
    padded = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(padded)
    for row, length in enumerate(lengths):
        padded[row, width - length :] = ids[row, :length]
        mask[row, width - length :] = 1
    return padded, mask


@torch.no_grad()
def chunked_logits(
    model: PreTrainedModel, ids: torch.Tensor, sizes: list[int], attention_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, L, V): one call a chunk, each continuing from the cache of the ones before; `sizes` sum to L."""
    cache, logits, seen = DynamicCache(config=model.config), [], 0
    # transformers' Mamba-2 has another name for it
    native_mamba = model.config.model_type == "mamba2" and not hasattr(type(model), "prepared_from")
    name = "cache_params" if native_mamba else "past_key_values"
    for part in ids.split(sizes, dim=1):
        seen += part.shape[1]
        mask = {} if attention_mask is None else {"attention_mask": attention_mask[:, :seen]}
        logits.append(model(input_ids=part, use_cache=True, **{name: cache}, **mask).logits)
    return torch.cat(logits, dim=1)


def padding_probe(model: PreTrainedModel, ids: torch.Tensor, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, L, V) of `ids` behind `padding` masked positions of large noise, and the gradient (B, padding + L, D)
    of their squared sum with respect to the embeddings of all positions."""
    table = model.get_input_embeddings()
    noise = 5 * torch.randn(ids.shape[0], padding, table.embedding_dim, generator=torch.Generator().manual_seed(7))
    embeds = torch.cat([noise, table(ids).detach()], dim=1).requires_grad_()
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    mask[:, :padding] = 0
    logits = model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits[:, padding:]
    (gradient,) = torch.autograd.grad(logits.square().sum(), embeds)
    return logits.detach(), gradient
