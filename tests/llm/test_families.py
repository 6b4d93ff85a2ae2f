"""The registry of language-model families: what a record says is true of the classes and weights of transformers, and
an unknown or doubled family cannot slip in.
"""

import dataclasses
import re
import sys

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from llm import families, family_of, prepare_language_model
from llm.family import _REGISTRY, LLMFamily, register_family
from llm.kernels import find_kernels
from llm.prepare import is_prepared
from vlm.label_mask import FAMILIES as TURN_FAMILIES

FAMILIES = sorted(families())
REQUIRED = {
    "nemotron_h", "bamba", "falcon_h1", "granitemoehybrid", "zamba2", "mamba2", "jamba", "llama", "qwen3", "mistral",
}  # fmt: skip
TRANSFORMERS = {"llama", "qwen3", "mistral"}


def tiny_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(families()[name].tiny())


def class_names(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules()}


def test_the_required_families_are_there_in_order():
    assert set(families()) >= REQUIRED
    assert list(families()) == sorted(families())
    assert "" not in families(), "the default record is no family"


@pytest.mark.parametrize("name", FAMILIES)
def test_record_is_about_its_own_model(name: str):
    record = families()[name]
    config = record.tiny()
    model = tiny_model(name)
    assert record.model_type == name == config.model_type == model.config.model_type
    assert family_of(name) is family_of(config) is family_of(model) is record
    assert family_of(prepare_language_model(model)) is record
    assert record.title and record.kind and record.packing
    assert record.packs and not record.packing_needs_proof
    assert config.hidden_size == 64 and config.vocab_size == 96, "small enough for every test to use it"
    assert sum(p.numel() for p in model.parameters()) < 1e6
    assert config is not record.tiny(), "tests may change theirs"
    assert bool(record.swaps) == (name not in TRANSFORMERS)


@pytest.mark.parametrize("name", FAMILIES)
def test_classes_named_in_a_record_exist_and_are_used(name: str):
    record, model = families()[name], tiny_model(name)
    module = sys.modules[type(model).__module__]
    assert module.__name__ == f"transformers.models.{name}.modeling_{name}"
    assert record.block_classes
    for class_name in (*record.swaps, *record.block_classes):
        assert issubclass(getattr(module, class_name), nn.Module)
        assert class_name in class_names(model), "the tiny configuration has one"
    for mixin in record.swaps.values():
        assert mixin.forward and not issubclass(mixin, nn.Module), "what a mixin lacks stays transformers' own"
    names = class_names(model)
    prepare_language_model(model)
    assert class_names(model) == names, "checkpoints and sharding go by class names"
    swapped = {type(module).__name__ for module in model.modules() if is_prepared(module)}
    assert swapped == set(record.swaps) | {type(model).__name__}


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_hold_all_layers(name: str):
    """Sharding and checkpointing wrap blocks: what is outside them is embeddings, head and last norm."""
    record, model = families()[name], tiny_model(name)
    inside = {
        id(parameter)
        for block in model.modules()
        if type(block).__name__ in record.block_classes
        for parameter in block.parameters()
    }
    outside = [key for key, parameter in model.named_parameters() if id(parameter) not in inside]
    assert inside
    for key in outside:
        assert re.search(r"(embed\w*|lm_head|norm\w*)\.weight$", key) and ".layers." not in key
    assert set(model._no_split_modules) & class_names(model) <= set(record.block_classes)


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_targets_are_linear_layers_and_refusals_exist(name: str):
    record, model = families()[name], tiny_model(name)
    linear = {key.rsplit(".", 1)[-1] for key, module in model.named_modules() if isinstance(module, nn.Linear)}
    everything = {key.rsplit(".", 1)[-1] for key, _ in model.named_modules()}
    assert record.lora_targets and set(record.lora_targets) <= linear
    assert not set(record.lora_targets) & set(record.lora_refused)
    assert set(record.lora_refused) <= everything and all(record.lora_refused.values()), "with a reason"
    routers = {"gate", "router", "layer"}  # a linear layer that is no target needs a reason: head, router or refusal
    assert linear - set(record.lora_targets) <= {"lm_head", *routers, *record.lora_refused} | adapters(name)


def adapters(name: str) -> set[str]:
    """Zamba2 has low-rank adapters of its own, numbered by layer, and a projection beside the shared block."""
    return {"0", "1", "linear"} if name == "zamba2" else set()


@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_and_turn_templates_are_known(name: str):
    record = families()[name]
    assert record.kernels and set(record.kernels) <= set(find_kernels())
    assert ("mamba_chunk_scan" in record.kernels) == ("Mamba-2" in record.kind)
    assert ("flash_attention_2" in record.kernels) == (name != "mamba2")
    assert record.turn_template in {"", *(turn.name for turn in TURN_FAMILIES)}


@pytest.mark.parametrize("name", FAMILIES)
def test_words_about_the_loss_match_the_record(name: str):
    record = families()[name]
    config = record.tiny()
    numbers = (record.logit_scale(config), record.embedding_scale(config))
    extras = numbers != (1.0, 1.0) or record.z_loss(config) or record.auxiliary_loss or record.softcap(config)
    assert bool(record.loss_extras) == bool(extras)
    assert bool(record.base_options(config)) == bool(record.auxiliary_loss)


def test_a_second_record_of_a_name_is_refused():
    before = dict(_REGISTRY)
    with pytest.raises(ValueError, match="'llama' is registered twice"):
        register_family(dataclasses.replace(families()["llama"], title="another"))
    assert before == _REGISTRY


def test_a_new_record_is_found_until_it_is_removed(monkeypatch):
    monkeypatch.delitem(_REGISTRY, "llama")
    assert "llama" not in families() and family_of("llama") is family_of("")
    new = register_family(LLMFamily(model_type="llama", title="new", kind="Transformer"))
    assert families()["llama"] is new and not new.packs, "a record without words about packing never packs"
    monkeypatch.undo()
    assert families()["llama"] is not new


def test_unknown_models_get_the_default_record():
    default = family_of("some-model-of-tomorrow")
    assert default.model_type == "" and default.packing_needs_proof and not default.packs
    assert family_of(GPT2Config()) is default and default not in families().values()
    assert family_of(object()) is default


def test_records_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        families()["llama"].title = "other"
    families()["llama"] = None
    assert families()["llama"] is not None, "families() is a copy"
