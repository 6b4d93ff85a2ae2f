"""The proof that an unknown model may be packed: what it lets through must pack exactly, what leaks must not get
through, however small, sleepy or far apart the leak is.
"""

import copy
import logging

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    GraniteConfig,
    Lfm2Config,
    MambaConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
    RwkvConfig,
)

from llm import families
from llm.head_proof import why_loss_needs_logits
from llm.packing_proof import why_not_packed
from tests.helpers.tiny_llm import (
    difference,
    gradient_error,
    gradients,
    native_model,
    prepared_copy,
    random_ids,
    samples,
    separate_logits,
    seq_idx_of,
)

ROWS = [[150, 1, 33], [10, 74, 100]]
SIZES = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.1, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOWED = {"head_dim": 16, "sliding_window": 32, "query_pre_attn_scalar": 16}
PLAIN: dict[str, PreTrainedConfig] = {
    "qwen2": Qwen2Config(**SIZES),
    "olmo2": Olmo2Config(**SIZES),
    "gpt2": GPT2Config(vocab_size=96, n_embd=64, n_layer=2, n_head=4, n_positions=512, initializer_range=0.1),
    "gemma2": Gemma2Config(**SIZES, **WINDOWED, final_logit_softcapping=2.0, attn_logit_softcapping=3.0),
    "gemma3": Gemma3TextConfig(**SIZES, **WINDOWED, layer_types=["sliding_attention", "full_attention"]),
    "cohere": CohereConfig(**SIZES, logit_scale=0.3),
    "granite": GraniteConfig(**SIZES, logits_scaling=1.7, embedding_multiplier=1.3),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=0.05),
}
LEAKING: dict[str, tuple[PreTrainedConfig, str]] = {
    "mamba": (MambaConfig(vocab_size=96, hidden_size=64, num_hidden_layers=2, state_size=8), "does not take position"),
    "rwkv": (RwkvConfig(vocab_size=96, hidden_size=64, num_hidden_layers=2), "does not take position_ids"),
    "bloom": (BloomConfig(vocab_size=96, hidden_size=64, n_layer=2, n_head=4), "does not take position_ids"),
    "recurrent_gemma": (
        RecurrentGemmaConfig(**SIZES | {"num_hidden_layers": 3}, lru_width=64, attention_window_size=32),
        "depends on another",
    ),
    "lfm2": (Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]), "depends on another"),
    "qwen3_next": (
        Qwen3NextConfig(
            **SIZES, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
            shared_expert_intermediate_size=32, layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
        ),
        "depends on another",
    ),
    # plain Transformers, but transformers 5.23 makes their mask without position_ids
    "opt": (
        OPTConfig(
            vocab_size=96, hidden_size=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4,
            word_embed_proj_dim=64, max_position_embeddings=512,
        ),
        "depends on another",
    ),
    "gpt_oss": (GptOssConfig(**SIZES, head_dim=16, num_local_experts=4, sliding_window=32), "depends on another"),
    "falcon": (
        FalconConfig(vocab_size=96, hidden_size=64, num_hidden_layers=2, num_attention_heads=4),
        "depends on another",
    ),
}  # fmt: skip


def test_these_are_unknown():
    known = set(families())
    assert known.isdisjoint(config.model_type for config in PLAIN.values())
    assert known.isdisjoint(config.model_type for config, _ in LEAKING.values())


@pytest.mark.parametrize("implementation", [None, "eager"])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_transformers_are_proven_and_pack(name: str, implementation: str | None):
    native = native_model(copy.deepcopy(PLAIN[name]))
    model = prepared_copy(native)
    if implementation is not None:
        model.config._attn_implementation = implementation
    assert model.why_not_packed() is None and model.packing_enabled
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    wanted = separate_logits(native, ids, ROWS)
    found = model(input_ids=ids, seq_idx=seq_idx).logits
    assert difference(found, wanted) <= 2e-5
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0))
    error = gradient_error(gradients(model, (found * weights).sum()), gradients(native, (wanted * weights).sum()))
    assert error <= 1e-4
    with torch.no_grad():
        assert difference(model(input_ids=ids).logits, wanted) > 1e-2


@pytest.mark.parametrize("name", PLAIN)
def test_loss_of_unknown_models_is_their_own(name: str, caplog):
    """Packed, with and without logits: caps, factors and router losses of the class are in it."""
    native = native_model(copy.deepcopy(PLAIN[name]))
    model = prepared_copy(native)
    rows = [[40, 1, 23]]  # one row: transformers' router loss is over the tokens of a call
    ids, seq_idx = random_ids(rows), seq_idx_of(rows)
    total, count, routers = 0.0, 0, []
    for sample in samples(ids, rows):
        options = {"output_router_logits": True} if name == "mixtral" else {}
        outputs = native(input_ids=sample, use_cache=False, **options)
        total = total + nn.functional.cross_entropy(outputs.logits[0, :-1].float(), sample[0, 1:], reduction="sum")
        count += sample.shape[1] - 1
        routers.append(outputs.get("router_logits"))
    wanted = total / count
    if name == "mixtral":
        from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

        wanted = wanted + 0.05 * load_balancing_loss_func(tuple(map(torch.cat, zip(*routers))), 4, 2)
    wanted_gradients = gradients(native, wanted)
    with caplog.at_level(logging.WARNING, "llm.head_proof"):
        for skip_logits in (True, False):
            outputs = model(input_ids=ids, seq_idx=seq_idx, labels=ids, skip_logits=skip_logits)
            assert (outputs.logits is None) == skip_logits
            assert difference(outputs.loss, wanted) <= 1e-5
            assert gradient_error(gradients(model, outputs.loss), wanted_gradients) <= 1e-4
        each = model(input_ids=ids, seq_idx=seq_idx, labels=ids, return_token_losses=True)["token_losses"]
        assert each.shape == ids.shape and difference(each.sum() / count, total / count) <= 1e-5
    words = [record.getMessage() for record in caplog.records if record.name == "llm.head_proof"]
    assert len(words) == (name == "mixtral"), words
    if name == "mixtral":
        assert "adds to the cross entropy" in words[0] and "all logits" in words[0]
        with pytest.raises(ValueError, match="token_weights were given, but MixtralForCausalLM adds"):
            model(input_ids=ids, labels=ids, token_weights=torch.ones(ids.shape))


def test_an_unknown_cap_is_noticed_even_where_logits_are_small():
    config = copy.deepcopy(PLAIN["gemma2"])
    config.final_logit_softcapping, config.initializer_range = 30.0, 0.02
    model = prepared_copy(native_model(config))
    assert why_loss_needs_logits(model) is None
    blind = prepared_copy(native_model(config))
    vars(blind)["logits_of"] = blind.get_output_embeddings()  # as if the record knew no cap
    ids = random_ids([[12]])
    assert difference(blind(ids).logits, model(ids).logits) == 0
    assert "changes its logits behind the head" in why_loss_needs_logits(blind)


@pytest.mark.parametrize("name", LEAKING)
def test_models_that_leak_are_refused(name: str):
    config, reason = LEAKING[name]
    model = prepared_copy(native_model(copy.deepcopy(config)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids, seq_idx = random_ids([[20, 12]]), seq_idx_of([[20, 12]])
    words = rf"model_type '{config.model_type}'\) cannot keep packed samples apart: .*{reason}.*; leave seq_idx out"
    with pytest.raises(ValueError, match=words):
        model(input_ids=ids, seq_idx=seq_idx)
    assert not model.packing_enabled
    assert model(input_ids=ids).logits.shape == (1, 32, 96), "without seq_idx it is a model like any other"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Leak(nn.Module):
    """Carries something of earlier positions to later ones, whichever sample they are in."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.gate = nn.Parameter(torch.zeros(()))  # closed as yet

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.kind == "faint":
            return hidden + 1e-12 * hidden.cumsum(1)
        if self.kind == "gated":
            return hidden + self.gate * hidden.cumsum(1)
        if self.kind == "training":
            return hidden + 0.1 * hidden.cumsum(1) * self.training
        if self.kind == "far":  # 64 positions back
            return hidden + 0.1 * nn.functional.pad(hidden, (0, 0, 64, 0))[:, :-64]
        if self.kind == "backwards":  # from later samples
            return hidden + 0.1 * hidden.flip(1).cumsum(1).flip(1)
        if self.kind == "rows":
            return hidden + 0.1 * hidden.roll(1, 0)
        if self.kind == "without gradient":
            return hidden + 0.1 * hidden.detach().mean(1, keepdim=True)
        if self.kind == "by place":
            return hidden * torch.linspace(0.5, 1.5, hidden.shape[1])[:, None]
        return hidden


def with_leak(kind: str):
    model = prepared_copy(native_model(copy.deepcopy(PLAIN["qwen2"])))
    model.model.layers[1].input_layernorm = nn.Sequential(model.model.layers[1].input_layernorm, Leak(kind))
    return model


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("none", None),
        ("faint", "depends on another"),
        ("gated", "depends on another"),
        ("training", "depends on another"),
        ("far", "depends on another"),
        ("backwards", "depends on another"),
        ("rows", "depends on another"),
        ("without gradient", "another output in a packed row than alone"),
        ("by place", "another output in a packed row than alone"),
    ],
)
def test_the_proof_is_not_fooled(kind: str, reason: str | None):
    found = why_not_packed(with_leak(kind))
    assert found is None if reason is None else reason in found


def test_a_model_whose_output_ignores_its_input():
    model = with_leak("none")
    model.model.norm.weight.data.zero_()  # a zero parameter is woken up ...
    assert why_not_packed(model) is None
    model = with_leak("none")
    model.model.norm.forward = lambda hidden: torch.ones_like(hidden)  # ... a dead output is not
    assert "failed when tried" in why_not_packed(model) or "depends on no embedding" in why_not_packed(model)


@pytest.mark.parametrize("training", [True, False])
def test_the_proof_leaves_no_trace(training: bool):
    model = with_leak("gated").train(training)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.model.embed_tokens.weight.requires_grad_(False)
    before = {name: (p.clone(), p.requires_grad) for name, p in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    model.model.layers[0].eval()
    modes |= {name: False for name, _ in model.named_modules() if name.startswith("model.layers.0")}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.no_grad():
        assert "depends on another" in why_not_packed(model)
    assert torch.equal(torch.rand(4), expected), "the random state is that of before"
    for name, parameter in model.named_parameters():
        value, trained = before[name]
        assert torch.equal(parameter, value) and parameter.requires_grad == trained and parameter.grad is None
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_asked_once_for_each_attention_implementation(monkeypatch):
    model = with_leak("none")
    calls = []
    run_base = type(model).run_base
    monkeypatch.setattr(type(model), "run_base", lambda self, **inputs: calls.append(1) or run_base(self, **inputs))
    assert why_not_packed(model) is None
    asked = len(calls)
    assert why_not_packed(model) is None and len(calls) == asked
    model.config._attn_implementation = "eager"
    assert why_not_packed(model) is None and len(calls) == 2 * asked


def test_without_weights_there_is_no_proof():
    with torch.device("meta"):
        native = native_model(copy.deepcopy(PLAIN["qwen2"]))
    model = prepared_copy(native)
    assert "no weights here" in model.why_not_packed()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_proven_too(dtype: torch.dtype):
    model = prepared_copy(native_model(copy.deepcopy(PLAIN["qwen2"]))).to(dtype)
    assert model.why_not_packed() is None
    leaking = with_leak("far").to(dtype)
    assert "depends on another" in leaking.why_not_packed()


def test_a_model_that_fails_is_refused_with_its_error():
    model = with_leak("none")

    def fails(*args, **kwargs):
        raise RuntimeError("no such kernel")

    model.model.layers[0].forward = fails
    with pytest.raises(ValueError, match=r"it failed when tried \(RuntimeError: no such kernel\)"):
        model(random_ids([[8]]), seq_idx=seq_idx_of([[8]]))
