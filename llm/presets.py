"""Language models of real size by name, for `radio-vlm new` and for tests on the meta device; plus `tiny`.

Sizes of the Nemotron-H family: NVIDIA's published configurations; of Llama and Vicuna: Meta's and LMSYS's. The
parameter counts are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from transformers import LlamaConfig, NemotronHConfig, PreTrainedConfig, PreTrainedTokenizerBase

from llm.tiny_tokenizer import build_byte_tokenizer


@dataclass(frozen=True, kw_only=True)
class LLMPreset:
    """A language model known by name.

    Attributes:
        hub_id: where weights and tokenizer are; None for random weights.
        config: makes its configuration.
        parameters: exact parameter count of transformers' causal language model.
        tokenizer: makes a tokenizer without downloading one; only beside random weights.
    """

    hub_id: str | None
    config: Callable[[], PreTrainedConfig]
    parameters: int
    tokenizer: Callable[[], PreTrainedTokenizerBase] | None = None


def _nemotron_h(pattern: str, **sizes) -> NemotronHConfig:
    """What the whole family shares: 8 groups, convolution of 4, 8 KV heads of 128, squared ReLU, no bias, untied."""
    return NemotronHConfig(hybrid_override_pattern=pattern, n_groups=8, ssm_state_size=128, head_dim=128, **sizes)


_H_PATTERN = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
_NANO_9B_PATTERN = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
_NANO_12B_PATTERN = "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-"

LLM_PRESETS: dict[str, LLMPreset] = {
    "Nemotron-H-4B": LLMPreset(
        hub_id="nvidia/Nemotron-H-4B-Base-8K",
        config=partial(
            _nemotron_h, _H_PATTERN, hidden_size=3072, intermediate_size=12288, num_attention_heads=32,
            mamba_num_heads=112, mamba_head_dim=64, max_position_embeddings=8192,
        ),
        parameters=4_489_223_040,
    ),
    "Nemotron-H-8B": LLMPreset(
        hub_id="nvidia/Nemotron-H-8B-Base-8K",
        config=partial(
            _nemotron_h, _H_PATTERN, hidden_size=4096, intermediate_size=21504, num_attention_heads=32,
            mamba_num_heads=128, mamba_head_dim=64, max_position_embeddings=8192,
        ),
        parameters=8_100_852_736,
    ),
    "Nemotron-Nano-9B-v2": LLMPreset(
        hub_id="nvidia/NVIDIA-Nemotron-Nano-9B-v2",
        config=partial(
            _nemotron_h, _NANO_9B_PATTERN, hidden_size=4480, intermediate_size=15680, num_attention_heads=40,
            mamba_num_heads=128, mamba_head_dim=80, max_position_embeddings=131072,
        ),
        parameters=8_888_227_328,
    ),
    "Nemotron-Nano-12B-v2": LLMPreset(
        hub_id="nvidia/NVIDIA-Nemotron-Nano-12B-v2",
        config=partial(
            _nemotron_h, _NANO_12B_PATTERN, hidden_size=5120, intermediate_size=20480, num_attention_heads=40,
            mamba_num_heads=128, mamba_head_dim=80, max_position_embeddings=131072,
        ),
        parameters=12_310_001_152,
    ),
    "Llama-3.1-8B-Instruct": LLMPreset(
        hub_id="meta-llama/Llama-3.1-8B-Instruct",
        config=partial(
            LlamaConfig, vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072, rms_norm_eps=1e-5,
            bos_token_id=128000, eos_token_id=[128001, 128008, 128009],
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            },
        ),
        parameters=8_030_261_248,
    ),
    "Vicuna-7B-v1.5": LLMPreset(
        hub_id="lmsys/vicuna-7b-v1.5",
        config=partial(
            LlamaConfig, vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=4096, rms_norm_eps=1e-5,
        ),
        parameters=6_738_415_616,
    ),
    "tiny": LLMPreset(
        hub_id=None,
        config=partial(
            NemotronHConfig, hybrid_override_pattern="M*-M*-", vocab_size=384, hidden_size=128, intermediate_size=512,
            num_attention_heads=4, num_key_value_heads=4, head_dim=32, mamba_num_heads=4, mamba_head_dim=64,
            ssm_state_size=32, n_groups=1, chunk_size=128, max_position_embeddings=8192, initializer_range=0.06,
            pad_token_id=0, bos_token_id=1, eos_token_id=4,
        ),
        parameters=710_168,
        tokenizer=build_byte_tokenizer,
    ),
}
