"""LoRA on every family: adapters learn, act, merge and travel; what would go wrong is refused with the reason."""

import copy
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.bamba import modeling_bamba

from llm import families, prepare_language_model
from llm.lora import allow_out_proj, check_lora_gradients, is_adapter_parameter, lora_config, lora_pairs
from tests.helpers.model_inputs import batch, mixed_samples, tiny_model
from tests.helpers.tiny_llm import VOCABULARY, difference, native_model, prepared_copy, random_ids, seq_idx_of

FAMILIES = list(families())
MAMBA = [name for name, family in families().items() if family.swaps]
ROWS = [[70, 1, 29], [5, 64, 31]]


def adapted(name: str, seed: int = 0, **options):
    """`(transformers' own model, a prepared copy with adapters)`, seeded. Its weights are half as large as those of the
    tiny configurations, still twice those of published ones: fp32 alone moves the logits of Jamba's by 1e-5."""
    config = families()[name].tiny()
    config.initializer_range = 0.05
    native = native_model(config)
    model = prepared_copy(native)
    torch.manual_seed(seed)
    return native, get_peft_model(model, lora_config(model, rank=4, alpha=8, **options))


@pytest.mark.parametrize("name", FAMILIES)
def test_factors_are_known_by_their_names(name):
    _, model = adapted(name)
    trains = {parameter for parameter, tensor in model.named_parameters() if tensor.requires_grad}
    assert trains == {parameter for parameter, _ in model.named_parameters() if is_adapter_parameter(parameter)}


def nudge(model: nn.Module, seed: int = 0) -> nn.Module:
    """Adapters that do something: B away from 0."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, _, b in lora_pairs(model):
            b.normal_(std=0.05)
    return model


def packed(skip_logits: bool = True) -> dict:
    ids = random_ids(ROWS)
    return {"input_ids": ids, "labels": ids, "seq_idx": seq_idx_of(ROWS), "skip_logits": skip_logits}


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=random_ids(ROWS), use_cache=False).logits


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def expected_layers(native: nn.Module, targets: tuple[str, ...]) -> int:
    """Linear layers of these names, one for each weight tensor: counted without `llm.lora`."""
    found = set()
    for name, module in native.named_modules():
        if type(module) is nn.Linear and name.split(".")[-1] in targets:
            found.add(id(module.weight))
    return len(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_adapter_learns_from_a_packed_batch(name):
    native, model = adapted(name)
    output = model.train()(**packed())
    assert output.logits is None
    output.loss.backward()
    assert check_lora_gradients(model) == expected_layers(native, families()[name].lora_targets) > 0
    names = gradients(model)
    assert not any(grad.any() for key, grad in names.items() if "lora_A" in key), "why step 1 cannot check A: B is 0"
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    model.zero_grad()
    model(**packed()).loss.backward()
    check_lora_gradients(model)
    assert all("lora_" in key and grad.any() for key, grad in gradients(model).items()), "neither None nor zero"


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_the_same_with_checkpointing(name):
    _, model = adapted(name)
    nudge(model).train()(**packed()).loss.backward()
    wanted = {key: grad.clone() for key, grad in gradients(model).items()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    calls = []
    first = next(module for module in model.modules() if hasattr(module, "lora_A"))
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    model(**packed()).loss.backward()
    assert len(calls) == 2, "the control: layers are computed again in the backward"
    for key, grad in gradients(model).items():
        assert (grad - wanted[key]).norm() <= 1e-4 * wanted[key].norm() > 0, key


@pytest.mark.parametrize("name", FAMILIES)
def test_merging_changes_nothing_and_the_result_is_an_ordinary_checkpoint(name, tmp_path):
    native, model = adapted(name)
    expected = logits(nudge(model))
    assert difference(logits(native), expected) > 0.5, "the control: adapters do something"
    merged = model.merge_and_unload()
    assert not any("lora" in key for key, _ in merged.named_modules())
    assert difference(logits(merged), expected) <= 1e-5
    merged.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    for module, like in zip(again.modules(), native.modules()):
        if hasattr(like, "time_step_limit"):
            module.time_step_limit = like.time_step_limit
    assert difference(logits(again), expected) <= 1e-5


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "zamba2"])
def test_adapter_folder_opens_on_transformers_own_model(name, tmp_path):
    native, model = adapted(name)
    expected = logits(nudge(model))
    model.save_pretrained(tmp_path)
    assert difference(logits(PeftModel.from_pretrained(native, tmp_path)), expected) <= 1e-5


@pytest.mark.parametrize("name", MAMBA)
def test_adapters_on_out_proj_act_while_training(name):
    native, model = adapted(name)
    nudge(model).train()
    inputs = packed(skip_logits=False)
    with torch.no_grad():
        before = model(**inputs).logits
        silenced = [b.zero_() for layer, _, b in lora_pairs(model) if layer.endswith("out_proj")]
        assert len(silenced) == expected_layers(native, ("out_proj",)) > 0
        assert difference(model(**inputs).logits, before) > 1e-2


def skipping_kernel(projected, conv1d_weight, conv1d_bias, dt_bias, A, D, outproj_weight, **kwargs):
    """Like the fused kernel of mamba-ssm in the one respect that matters: it multiplies by the weight itself."""
    return projected[..., : outproj_weight.shape[1]] @ outproj_weight.T


def test_what_a_fused_kernel_does_to_adapters_on_out_proj_and_who_notices(monkeypatch):
    """The reason of the refusals: transformers' own class with a kernel, and the prepared class with it."""
    monkeypatch.setattr(modeling_bamba, "mamba2_split_conv1d_scan_combined", skipping_kernel)
    native = native_model("bamba")
    with pytest.raises(ValueError, match=r"prepare_language_model\(model\) first.*BambaMixer"):
        lora_config(native, targets=["out_proj"])
    plain = get_peft_model(copy.deepcopy(native), LoraConfig(target_modules=["out_proj", "in_proj"]))
    ids = random_ids(ROWS)
    plain.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    with pytest.raises(RuntimeError, match=r"of 4\):\n.*layers\.0\.mamba\.out_proj\.lora_A: no gradient") as caught:
        check_lora_gradients(plain)
    assert "in_proj" not in str(caught.value)
    model = prepared_copy(native)
    model = get_peft_model(model, lora_config(model, targets=["out_proj", "in_proj"]))
    model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert check_lora_gradients(model) == 4


@pytest.mark.parametrize("name", ["nemotron_h", "falcon_h1", "mamba2"])
def test_peft_still_protects_models_that_are_not_prepared(name):
    allow_out_proj()
    with pytest.raises(ValueError, match="out_proj"):
        get_peft_model(native_model(name), LoraConfig(target_modules=["out_proj"]))
    with pytest.raises(ValueError, match="conv1d"):
        get_peft_model(prepared_copy(native_model(name)), LoraConfig(target_modules=["conv1d"]))


def test_a_shared_block_has_one_adapter_that_acts_in_every_place(tmp_path):
    native, model = adapted("zamba2", targets=["q_proj"])
    first, second = (model.get_base_model().model.layers[i].shared_transformer for i in (1, 3))
    assert first.self_attn.q_proj is second.self_attn.q_proj
    assert len(list(lora_pairs(model))) == 1
    calls = []
    first.self_attn.q_proj.lora_B["default"].register_forward_pre_hook(lambda *_: calls.append(1))
    expected = logits(nudge(model))
    assert len(calls) == 2
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(prepared_copy(native), tmp_path)
    assert difference(logits(again), expected) <= 1e-6
    with pytest.warns(UserWarning, match="missing adapter keys"):  # two modules, one adapter: peft does not hide it
        PeftModel.from_pretrained(native, tmp_path)


def test_a_shared_block_is_refused_where_it_is_two_modules():
    with pytest.raises(ValueError, match=r"shares its weight with.*prepare_language_model\(model\) first"):
        lora_config(native_model("zamba2"), targets=["q_proj"])


@pytest.mark.parametrize("name", ["falcon_h1", "bamba", "granitemoehybrid"])
def test_an_adapter_on_the_head_goes_through_the_loop_of_chunks(name):
    """Three families whose loss has a multiplier or an extra term; the slow twin is their loss from all logits."""
    config = families()[name].tiny()
    config.tie_word_embeddings = False
    native = native_model(config)
    model = prepared_copy(native)
    model = nudge(get_peft_model(model, lora_config(model, targets=["lm_head", "in_proj"]))).train()
    ids = random_ids(ROWS)
    found, wanted = [], []
    for skip, into in ((True, found), (False, wanted)):
        model.zero_grad()
        output = model(input_ids=ids, labels=ids, skip_logits=skip)
        output.loss.backward()
        assert (output.logits is None) == skip
        into += [output.loss.detach(), *(grad.clone() for grad in gradients(model).values())]
    for one, other in zip(found, wanted):
        assert (one - other).norm() <= 1e-4 * other.norm() > 0
    head = model.get_base_model().lm_head
    with torch.no_grad():
        head.lora_B["default"].weight.zero_()
        assert (model(input_ids=ids, labels=ids, skip_logits=True).loss - found[0]).abs() > 1e-4


REFUSED = [(name, target) for name, family in families().items() for target in family.lora_refused]


@pytest.mark.parametrize(("name", "target"), REFUSED)
def test_targets_a_family_refuses(name, target):
    model = prepared_copy(native_model(name))
    for targets in ([target], ["in_proj", target], [f"mamba.{target}"], target):
        with pytest.raises(ValueError, match=f"{target}' is refused for {name}: .*through its weight"):
            lora_config(model, targets=targets)


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("llama", "query", "matches no layer of LlamaForCausalLM; linear layers: down_proj, gate_proj, k_proj"),
        ("llama", "roj", "matches no layer"),
        ("llama", "embed_tokens", "is a Embedding, no linear layer"),
        ("nemotron_h", "gate", "is a NemotronHTopkRouter, no linear layer"),
        ("nemotron_h", "experts", "is a NemotronHExperts, no linear layer"),
        ("jamba", "router", "is a JambaTopKRouter, no linear layer"),
        ("jamba", "experts.gate_up_proj", r"is a tensor \(4, 192, 64\) by itself"),
    ],
)
def test_targets_that_are_no_linear_layer(name, target, reason):
    model = prepared_copy(native_model(name))
    with pytest.raises(ValueError, match=f"LoRA target '{target}' {reason}"):
        lora_config(model, targets=["in_proj" if name != "llama" else "q_proj", target])


def test_a_tied_head_is_refused():
    config = families()["llama"].tiny()
    config.tie_word_embeddings = True
    model = prepared_copy(native_model(config))
    with pytest.raises(ValueError, match="'lm_head' shares its weight with 'model.embed_tokens'.*untie"):
        lora_config(model, targets=["lm_head"])
    assert "lm_head" not in lora_config(model).target_modules


def test_other_bad_input():
    _, model = adapted("llama")
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        lora_config(model)
    with pytest.raises(ValueError, match="targets is empty"):
        lora_config(native_model("llama"), targets=[])


def test_models_that_are_no_language_models():
    small = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text = CONFIG_MAPPING["llama"](vocab_size=VOCABULARY, num_key_value_heads=2, **small)
    vision = CONFIG_MAPPING["clip_vision_model"](image_size=8, patch_size=4, **small)
    foreign = AutoModelForImageTextToText.from_config(CONFIG_MAPPING["llava"](vision_config=vision, text_config=text))
    for model in (foreign, foreign.model, nn.Linear(2, 2), native_model("llama").model):
        with pytest.raises(ValueError, match=f"{type(model).__name__} is no causal language model, nor a VLM"):
            lora_config(model)
    config = CONFIG_MAPPING["gpt2"](vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2)
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no nn.Linear but its head"):
        lora_config(native_model(config))


def test_peft_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match="pip install peft"):
        lora_config(native_model("llama"))


def test_routers_and_experts_are_left_alone_by_default():
    for name in ("jamba", "granitemoehybrid", "nemotron_h"):
        for targets in (None, "all-linear"):
            chosen = lora_config(prepared_copy(native_model(name)), targets=targets).target_modules
            assert chosen and not any(word in path for path in chosen for word in ("router", ".experts", "lm_head"))
            assert not any(path.endswith((".gate", "dt_proj")) for path in chosen)


def test_a_model_of_no_known_family_gets_every_linear_layer_but_head_and_routers():
    config = CONFIG_MAPPING["qwen2_moe"](
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16,
        mlp_only_layers=[1],
    )  # fmt: skip
    model = prepared_copy(native_model(config))
    names = lora_config(model).target_modules
    attention = {f"model.layers.{i}.self_attn.{x}_proj" for i in (0, 1) for x in "qkvo"}
    mlps = ("model.layers.0.mlp.shared_expert", "model.layers.1.mlp")
    assert set(names) == attention | {f"{mlp}.{x}_proj" for mlp in mlps for x in ("gate", "up", "down")}
    named = lora_config(model, targets=["shared_expert_gate"]).target_modules
    assert list(named) == ["model.layers.0.mlp.shared_expert_gate"], "asked for by name it can be had"
    ids = random_ids(ROWS)
    model = get_peft_model(model, lora_config(model))
    model.train()(input_ids=ids, labels=ids, skip_logits=True).loss.backward()
    assert check_lora_gradients(model) == len(names)


def test_in_a_vlm_only_the_language_model_is_adapted():
    model = tiny_model("nemotron_h")
    assert model.vision_model is not None
    with pytest.raises(ValueError, match=r"prepare_language_model\(model\) first"):
        lora_config(model)
    prepare_language_model(model.language_model)
    config = lora_config(model, modules_to_save=["multi_modal_projector"])
    assert all(name.startswith("language_model.") for name in config.target_modules)
    with pytest.raises(ValueError, match="'attention.qkv' matches no layer of NemotronHForCausalLM"):
        lora_config(model, targets=["attention.qkv"])
    model = get_peft_model(model, config)
    inputs = batch(*mixed_samples(), side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    model.train()(**inputs, labels=labels).loss.backward()
    assert check_lora_gradients(model) == len(config.target_modules)
    assert all("language_model." in name for name, _, _ in lora_pairs(model))
    trained = [name for name in gradients(model) if "lora_" not in name]
    assert trained and all("multi_modal_projector" in name for name in trained)


def test_dead_adapters_are_listed():
    _, model = adapted("llama")
    with pytest.raises(RuntimeError, match=r"of 14\):\n(.*no gradient\n){20}  and 8 more\nWas backward called"):
        check_lora_gradients(model)
    model.train()(**packed()).loss.backward()
    assert check_lora_gradients(model) == 14
    q = model.get_base_model().model.layers[1].self_attn.q_proj
    with torch.no_grad():
        q.lora_B["default"].weight.fill_(1.0)  # now A must have a gradient, and it was taken while B was 0
    with pytest.raises(RuntimeError, match=r"of 14\):\n.*layers\.1\.self_attn\.q_proj\.lora_A: a gradient of zero\n"):
        check_lora_gradients(model)
    q.lora_B["default"].weight.grad.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"q_proj\.lora_B: a gradient that is not finite"):
        check_lora_gradients(model)
    with pytest.raises(ValueError, match="LlamaForCausalLM has no LoRA adapter"):
        check_lora_gradients(native_model("llama"))
