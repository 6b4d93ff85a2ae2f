"""With a flash attention implementation the cumulative lengths of transformers' varlen interface are handed over.

FlashAttention itself needs a GPU; a stand-in of the same interface computes from `cu_seq_lens_q` alone, so wrong or
missing lengths would show in the logits.
"""

import pytest
import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from llm import families, load_language_model

STAND_IN = "flash_stand_in"
WITH_ATTENTION = [name for name, family in families().items() if "flash_attention_2" in family.kernels]


def varlen(module, query, key, value, attention_mask, scaling=None, cu_seq_lens_q=None, max_length_q=None, **kwargs):
    """(B, H, L, d) laid end to end and cut at `cu_seq_lens_q`, as flash_attn_varlen_func does; no mask is read."""
    assert attention_mask is None
    lengths = cu_seq_lens_q.diff().tolist()
    assert cu_seq_lens_q.dtype == torch.int32 and max(lengths) == max_length_q
    assert torch.equal(kwargs["cu_seq_lens_k"], cu_seq_lens_q) and kwargs["max_length_k"] == max_length_q
    groups = query.shape[1] // key.shape[1]
    rows = [t.transpose(0, 1).flatten(1, 2) for t in (query, key, value)]
    rows[1:] = [t.repeat_interleave(groups, dim=0) for t in rows[1:]]
    pieces = zip(*(t.split(lengths, dim=1) for t in rows))
    out = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in pieces]
    return torch.cat(out, dim=1).unflatten(1, query.shape[::2]).permute(1, 2, 0, 3), None


AttentionInterface.register(STAND_IN, varlen)


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_cumulative_lengths_reach_every_attention_layer(name):
    torch.manual_seed(0)
    model = load_language_model(families()[name].tiny()).eval()
    ids = torch.randint(3, 96, (2, 40))
    seq_idx = torch.tensor([[0] * 9 + [1] + [2] * 30, [4] * 25 + [7] * 15])
    with torch.no_grad():
        expected = model(ids, seq_idx=seq_idx).logits
        model.config._attn_implementation = STAND_IN
        got = model(ids, seq_idx=seq_idx).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-5)
