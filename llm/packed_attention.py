"""Attention that never looks into another packed sample: scaled-dot-product attention run sample by sample, so a pack
of 4096 costs the sum of the squared sample lengths and no (L, L) mask is ever made. Registered with transformers
under the name below; without packed samples it is transformers' own `sdpa`.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_SDPA = "packed_sdpa"
_KEEPS_APART = (PACKED_SDPA, "sdpa", "eager", "flex_attention")  # by lengths, or by masks made from position_ids


def check_attention(implementation: str | None) -> None:
    """Raises ValueError for an attention implementation that may not read what keeps packed samples apart."""
    name = implementation or "eager"
    if name not in _KEEPS_APART and ("flash" not in name or name.startswith("paged")):
        raise ValueError(
            f"seq_idx and attention implementation {name!r} were both given: nothing is known to keep packed samples "
            f"apart there; use one of {', '.join(_KEEPS_APART)} or a flash attention"
        )


def no_mask(like: torch.Tensor) -> torch.Tensor:
    """A 4-D stand-in: transformers hands 4-D masks through untouched, and `packed_sdpa` reads lengths instead."""
    return like.new_ones(1, 1, 1, 1, dtype=torch.bool)


def local_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """(1, 1, L, L) bool: causal, and not further back than `window - 1` positions."""
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return (ones.tril() & ones.triu(1 - window))[None, None]


def packed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    sample_lengths: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature: (B, H, L, d) in, (B, L, H, d) out.

    Args:
        sample_lengths: (S,) integers on the CPU, lengths of the packed samples, row after row; None: plain `sdpa` with
            `attention_mask`.
        sliding_window: positions each query may look back to, itself included.
    """
    if sample_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kwargs.pop("position_ids", None)
    return _sample_by_sample(module, query, key, value, sample_lengths, sliding_window, kwargs), None


@torch.compiler.disable  # traced, the loop would be compiled again for every new row of samples
def _sample_by_sample(module, query, key, value, sample_lengths, sliding_window, kwargs: dict) -> torch.Tensor:
    batch, _, length, _ = query.shape
    rows = (t.transpose(0, 1).reshape(1, t.shape[1], batch * length, t.shape[3]) for t in (query, key, value))
    pieces = zip(*(t.split(sample_lengths.tolist(), dim=2) for t in rows))
    outputs = []
    for q, k, v in pieces:
        size = q.shape[2]
        mask = local_mask(size, sliding_window, q.device) if sliding_window and size > sliding_window else None
        outputs.append(sdpa_attention_forward(module, q, k, v, mask, **kwargs)[0])
    return torch.cat(outputs, dim=1).reshape(batch, length, -1, value.shape[3])


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
