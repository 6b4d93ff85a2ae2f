"""Preparing changes what a model can do and nothing that anybody else sees: names, weights, configuration, files."""

import copy
import io
import json

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    CLIPTextConfig,
    CLIPTextModel,
    T5Config,
    T5ForConditionalGeneration,
)

import llm
from llm import families, prepare_language_model, restore_language_model
from llm.prepare import is_prepared
from tests.helpers.family_models import enliven
from tests.helpers.tiny_llm import difference, native_model, prepared_copy, random_ids, seq_idx_of

FAMILIES = sorted(families())
ROWS = [[30, 1, 50]]


def pair(name: str):
    native = enliven(native_model(name))
    return native, prepared_copy(native)


def classes(model: nn.Module) -> dict[str, type]:
    """Name -> class of every module, under every name that it has."""
    return {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}


def swapped(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if is_prepared(module)]


@pytest.mark.parametrize("name", FAMILIES)
def test_names_weights_and_configuration_stay(name: str):
    native, model = pair(name)
    before, after = native.state_dict(), model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [n for n, _ in native.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert native.config.to_dict() == model.config.to_dict()
    written = lambda found: {n: (c.__module__, c.__qualname__) for n, c in classes(found).items()}  # noqa: E731
    assert written(native) == written(model)
    assert isinstance(model, type(native))
    assert not any(key.startswith("_") and "packed" in key for key in model.config.to_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_swapped_is_what_the_family_declares(name: str):
    _, model = pair(name)
    wanted = [n for n, m in model.named_modules() if type(m).__name__ in families()[name].swaps]
    assert swapped(model) == ["", *wanted]
    assert len(wanted) >= len(families()[name].swaps)
    if name != "mamba2":  # it has no attention
        assert model.config._attn_implementation == "packed_sdpa"


@pytest.mark.parametrize("name", FAMILIES)
def test_same_logits_loss_and_hidden_states(name: str):
    native, model = pair(name)
    ids = random_ids([[40], [40]])
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    labels = ids.masked_fill(mask == 0, -100)
    with torch.no_grad():
        wanted = native(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)
        found = model(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    real = mask.bool()
    tolerance = 1e-4 if name == "jamba" else 2e-5  # see LIVELY of test_packed_families
    assert difference(found.logits[real], wanted.logits[real]) <= tolerance
    assert difference(found.loss, wanted.loss) <= 1e-5
    assert len(found.hidden_states) == len(wanted.hidden_states) == native.config.num_hidden_layers + 1
    for a, b in zip(found.hidden_states, wanted.hidden_states):
        assert difference(a[real], b[real]) <= 10 * tolerance * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_folder_is_transformers_own(name: str, tmp_path):
    native, model = pair(name)
    native.save_pretrained(tmp_path / "native")
    model.save_pretrained(tmp_path / "prepared")
    ours, theirs = (json.loads((tmp_path / side / "config.json").read_text()) for side in ("prepared", "native"))
    assert ours == theirs
    assert ours["architectures"] == [type(native).__name__]
    names = lambda side: sorted(p.name for p in (tmp_path / side).iterdir())  # noqa: E731
    assert names("prepared") == names("native")
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "prepared", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert not swapped(plain) and type(plain) is type(native)
    plain = plain.eval()
    reopened = llm.load_language_model(tmp_path / "prepared").eval()
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "native").eval()
        assert torch.equal(plain(ids).logits, again(ids).logits)
        assert torch.equal(reopened(ids, seq_idx=seq_idx).logits, model(ids, seq_idx=seq_idx).logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_twice_is_once(name: str):
    _, model = pair(name)
    before = classes(model)
    assert prepare_language_model(model) is model
    assert classes(model) == before
    assert model.config._attn_implementation != "sdpa" or name == "mamba2"


@pytest.mark.parametrize("name", FAMILIES)
def test_restore_gives_the_native_classes_back(name: str):
    native, model = pair(name)
    ids = random_ids(ROWS)
    assert restore_language_model(model) is model
    assert classes(model) == classes(native)
    assert model.config._attn_implementation == native.config._attn_implementation
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, native(input_ids=ids).logits)
    restore_language_model(model)
    assert swapped(prepare_language_model(model))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", ["deepcopy", "torch.save"])
def test_copies_are_prepared_and_independent(name: str, how: str):
    _, model = pair(name)
    ids, seq_idx = random_ids(ROWS), seq_idx_of(ROWS)
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert classes(twin) == classes(model)
    with torch.no_grad():
        wanted = model(input_ids=ids, seq_idx=seq_idx).logits
        assert torch.equal(twin(input_ids=ids, seq_idx=seq_idx).logits, wanted)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(model(input_ids=ids, seq_idx=seq_idx).logits, wanted)


def test_other_instances_of_the_class_are_untouched():
    """A swap of instances, not a patch of transformers."""
    bystander = native_model("bamba")
    methods = {module: type(module).forward for module in bystander.modules()}
    _, model = pair("bamba")
    assert all(type(module).forward is method for module, method in methods.items())
    assert not swapped(bystander)
    with pytest.raises(TypeError):
        type(bystander)(bystander.config, seq_idx=None)
    assert "seq_idx" not in type(bystander).forward.__code__.co_varnames
    assert "seq_idx" in type(model).forward.__code__.co_varnames


@pytest.mark.parametrize("name", FAMILIES)
def test_every_projection_is_called_as_a_module(name: str):
    """Adapters and ZeRO-3 hang on forward hooks, which a fused kernel passes by."""
    model = prepared_copy(native_model(name))
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    called = set()
    for n in linear:
        model.get_submodule(n).register_forward_hook(lambda *_, n=n: called.add(n))
    model(input_ids=random_ids(ROWS), seq_idx=seq_idx_of(ROWS))
    silent = {n.rsplit(".", 1)[-1] for n in linear - called}
    assert silent <= set(families()[name].lora_refused)
    assert any("out_proj" in n or "o_proj" in n for n in called)


def bert_with_a_head() -> nn.Module:
    return BertForMaskedLM(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))


def t5() -> nn.Module:
    return T5ForConditionalGeneration(T5Config(vocab_size=30, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2))


def clip() -> nn.Module:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPTextModel(CLIPTextConfig(vocab_size=30, **sizes))


@pytest.mark.parametrize(
    "make",
    [bert_with_a_head, t5, clip, lambda: AutoModel.from_config(families()["bamba"].tiny()), lambda: nn.Linear(2, 2)],
    ids=["masked LM", "encoder-decoder", "text tower", "base model", "module"],
)
def test_other_models_are_refused(make):
    model = make()
    before = classes(model)
    with pytest.raises(TypeError, match=f"{type(model).__name__} is no causal language model of transformers"):
        prepare_language_model(model)
    assert classes(model) == before
