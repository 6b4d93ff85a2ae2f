"""Adapter folders: every way of opening one gives the model that was saved, and a wrong or torn one is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

import vlm  # noqa: F401
from llm import lora_config, prepare_language_model
from llm.lora import lora_pairs
from tests.helpers.model_inputs import batch, mixed_samples, tiny_model
from vlm.adapted_model import inject, load_weights, merge, record_of, tables_of, trained_state_dict
from vlm.adapter_folder import base_of, is_adapter, read_base, weight_fingerprint, write_base
from vlm.cli.loading import load_config
from vlm.errors import RadioVLMError
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration

CASES = [("nemotron_h", True), ("nemotron_h", False), ("llama", True), ("bamba", False), ("zamba2", True)]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch(*mixed_samples(), side="right")).logits


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest logit."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def adapted(folder: Path, family: str, tied: bool = False):
    """A prepared model on a saved base, with random adapters, a moved projector, norm and rows of new tokens."""
    tiny_model(family, text_tie_word_embeddings=tied).save_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    prepare_language_model(model.language_model)
    config = lora_config(model, rank=4, alpha=8)
    norm = next(name for name, _ in model.vision_model.named_modules() if name.endswith("norm1"))
    config.modules_to_save = ["multi_modal_projector", f"vision_model.{norm}"]
    config.trainable_token_indices = {name: [5, 6] for name in tables_of(model)}
    inject(model, config, base_of(str(folder)))
    torch.manual_seed(1)
    with torch.no_grad():
        for _, _, b in lora_pairs(model):
            b.normal_(std=0.1)
        for part in (model.multi_modal_projector, model.vision_model.get_submodule(norm)):
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.get_input_embeddings().weight[5:7] += 0.5
    return model


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'tied' if case[1] else 'untied'}")
def saved(request, tmp_path_factory):
    """`(folder of base and adapter, logits of the adapted model)`."""
    folder = tmp_path_factory.mktemp("adapter")
    model = adapted(folder / "base", *request.param)
    model.save_pretrained(folder / "adapter")
    return folder, logits(model)


def test_auto_model_own_class_and_peft_open_the_same_model(saved):
    folder, expected = saved
    base = AutoModelForImageTextToText.from_pretrained(folder / "base")
    assert worst(logits(base), expected) > 0.1, "the control: the adapter does something"
    for opened in (
        AutoModelForImageTextToText.from_pretrained(folder / "adapter"),
        RadioVLMForConditionalGeneration.from_pretrained(folder / "adapter"),
        PeftModel.from_pretrained(base, folder / "adapter"),  # knows nothing of this package
    ):
        assert worst(logits(opened), expected) <= 1e-5


def test_merged_is_an_ordinary_checkpoint_and_saving_again_changes_nothing(saved, tmp_path):
    folder, expected = saved
    model = AutoModelForImageTextToText.from_pretrained(folder / "adapter")
    model.save_pretrained(tmp_path / "again")
    first, second = (load_file(path / "adapter_model.safetensors") for path in (folder / "adapter", tmp_path / "again"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    merge(model).save_pretrained(tmp_path / "merged")
    assert record_of(model) is None and not is_adapter(tmp_path / "merged")
    assert worst(logits(AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")), expected) <= 1e-5
    with pytest.raises(RadioVLMError, match="no adapter to merge"):
        merge(model)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    adapted(folder / "base", "llama").save_pretrained(folder / "adapter")
    return folder


def test_the_base_named_is_left_as_it_is_where_nothing_trained(llama):
    base, model = (AutoModelForImageTextToText.from_pretrained(llama / name) for name in ("base", "adapter"))
    own = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    moved = [name for name, value in base.state_dict().items() if not torch.equal(own[name], value)]
    assert all(name.startswith("multi_modal_projector.") or "norm1" in name or "embed" in name for name in moved)
    table = "language_model.model.embed_tokens.weight"
    rows = (own[table] != base.state_dict()[table]).any(dim=1).nonzero().flatten().tolist()
    assert rows == [5, 6]


def copied(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama / "adapter", tmp_path / "adapter"))


def test_other_weights_below_are_refused(llama, tmp_path):
    other = tmp_path / "other"
    tiny_model("llama", seed=5, text_tie_word_embeddings=False).save_pretrained(other)
    model = AutoModelForImageTextToText.from_pretrained(other)
    with pytest.raises(RadioVLMError, match="trained on other weights"):
        model.load_adapter(str(llama / "adapter"))
    same = AutoModelForImageTextToText.from_pretrained(shutil.copytree(llama / "base", tmp_path / "moved"))
    same.load_adapter(str(llama / "adapter"))  # the same weights elsewhere
    with pytest.raises(RadioVLMError, match="the model has one"):
        same.load_adapter(str(llama / "adapter"))


def test_a_base_on_the_hub_stays_the_one_it_was_trained_on(llama, tmp_path, monkeypatch):
    """The repository has moved on since: other weights, another config."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository, old, new = tmp_path / "models--org--base", "a" * 40, "b" * 40
    shutil.copytree(llama / "base", repository / "snapshots" / old)
    later = tiny_model("llama", seed=5, text_tie_word_embeddings=False)
    later.config.video["max_frames"] = 3
    later.save_pretrained(repository / "snapshots" / new)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(old)
    base = base_of("org/base")
    assert base.revision == old == base_of("org/base", "main").revision
    (repository / "refs/main").write_text(new)
    assert base_of("org/base").revision == new and base_of("org/base", old) == base

    folder = copied(llama, tmp_path)
    write_base(folder, base)
    settings = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    expected = logits(AutoModelForImageTextToText.from_pretrained(llama / "adapter"))
    pinned = AutoModelForImageTextToText.from_pretrained("org/base", revision=old)
    pinned.load_adapter(str(folder))
    eager = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    own = RadioVLMForConditionalGeneration.from_pretrained(folder)
    for opened in (pinned, eager, own):
        assert worst(logits(opened), expected) <= 1e-5 and opened.config.video["max_frames"] != 3
    assert eager.config.text_config._attn_implementation == "eager" != own.config.text_config._attn_implementation
    assert load_config(str(folder)).video == own.config.video
    with pytest.raises(RadioVLMError, match=f"trained on other weights .* at revision {old}"):
        AutoModelForImageTextToText.from_pretrained("org/base").load_adapter(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(next(n for n in t if "multi_modal_projector" in n)), "missing: multi_modal_projector"),
        (lambda t: t.pop(next(n for n in t if "lora_B" in n)), "missing: .*lora_B"),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": torch.zeros(1)}), "unexpected: x.lora_A"),
        (lambda t: t.update({n: v[:1] for n, v in t.items() if "lora_A" in n}), "shape: "),
    ],
    ids=["projector", "factor", "extra", "shape"],
)
def test_what_does_not_fit_is_refused(llama, tmp_path, change, message):
    folder = copied(llama, tmp_path)
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(RadioVLMError, match=message):
        AutoModelForImageTextToText.from_pretrained(folder)


def test_torn_files_and_nameless_bases_are_refused(llama, tmp_path):
    folder = copied(llama, tmp_path)
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(RadioVLMError, match="cannot be read"):
        AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(RadioVLMError, match="not complete"):
        AutoModelForImageTextToText.from_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(RadioVLMError, match="base_model_name_or_path is empty"):
        read_base(folder)


def test_the_fingerprint_sees_a_changed_weight_and_not_the_sharding(llama, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(llama / "base")
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    expected = weight_fingerprint(str(llama / "base"))
    assert weight_fingerprint(str(tmp_path / "shards")) == expected == read_base(llama / "adapter").fingerprint
    with torch.no_grad():
        model.language_model.model.layers[1].mlp.up_proj.weight[-1, -1] += 1e-3
    model.save_pretrained(tmp_path / "changed")
    assert weight_fingerprint(str(tmp_path / "changed")) != expected


def test_small_states_load_and_incomplete_ones_do_not(llama):
    model = AutoModelForImageTextToText.from_pretrained(llama / "adapter")
    state = trained_state_dict(model)
    assert len(state) < len(model.state_dict()) / 2
    with torch.no_grad():
        for name in state:
            model.state_dict()[name].zero_()
    model.load_state_dict(state)
    again = trained_state_dict(model)
    assert all(torch.equal(again[name], state[name]) for name in state)
    load_weights(model, str(llama / "adapter"))
    with pytest.raises(RadioVLMError, match="the adapter needs"):
        model.load_state_dict({name: value for name, value in state.items() if "projector" not in name})
