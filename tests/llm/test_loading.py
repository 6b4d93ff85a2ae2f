"""Opening a language model: every form of source and option, every weight as it was written, and errors that name what
is wrong. Nothing a checkpoint brings along is run.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CLIPConfig, GPT2Config, NemotronHConfig, T5Config

from llm import families, load_language_model
from llm.packed_attention import PACKED_SDPA
from llm.prepare import is_prepared
from llm.presets import LLM_PRESETS
from tests.helpers.family_models import FAMILIES, native_and_prepared, tokens

REMOTE = "raise RuntimeError('code of the checkpoint was run')\n"


def save(name: str, folder: Path, **options) -> dict[str, torch.Tensor]:
    """Write a lively tiny model; returns its weights."""
    config = families()[name].tiny()
    if name == "nemotron_h":
        config.rescale_prenorm_residual = True  # a further reason to draw weights again
    model = native_and_prepared(name, config)[1]
    model.save_pretrained(folder, **options)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Nemotron-H on disk."""
    path = tmp_path_factory.mktemp("nemotron_h")
    save("nemotron_h", path)
    return path


def edited(folder: Path, out: Path, **changes) -> Path:
    """A copy whose config.json has these values; None: without this key."""
    shutil.copytree(folder, out, dirs_exist_ok=True)
    config = json.loads((out / "config.json").read_text()) | changes
    (out / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return out


def with_pattern(folder: Path, out: Path, pattern: str) -> Path:
    """As NVIDIA writes its checkpoints: letters instead of a list of blocks."""
    return edited(folder, out, hybrid_override_pattern=pattern, layers_block_type=None)


def assert_equal_weights(found: dict, wanted: dict, but: tuple[str, ...] = ()):
    """Same names, same dtypes, same bits, except at the names `but`."""
    assert found.keys() == wanted.keys()
    for key in found.keys() - set(but):
        assert found[key].dtype == wanted[key].dtype, key
        assert torch.equal(found[key], wanted[key]), key


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_come_back_bit_for_bit(name: str, tmp_path: Path):
    """In one file, in shards, in bf16, in transformers itself."""
    written = save(name, tmp_path / "whole")
    assert_equal_weights(load_language_model(tmp_path / "whole").state_dict(), written)
    assert_equal_weights(AutoModelForCausalLM.from_pretrained(tmp_path / "whole").state_dict(), written)
    fresh = load_language_model(families()[name].tiny()).state_dict()
    same = {key for key in written if torch.equal(fresh[key], written[key])}
    assert all(key.endswith("e_score_correction_bias") for key in same), "control: initialisation gives other weights"

    save(name, tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert_equal_weights(load_language_model(tmp_path / "shards").state_dict(), written)

    half = load_language_model(tmp_path / "whole", dtype="bfloat16")
    for key, value in half.state_dict().items():
        kept = key.endswith("e_score_correction_bias")  # transformers keeps the router's correction in fp32
        assert torch.equal(value, written[key] if kept else written[key].bfloat16()), key
    half.save_pretrained(tmp_path / "half")
    again = load_language_model(tmp_path / "half")
    assert again.dtype == torch.bfloat16, "as stored"
    assert_equal_weights(again.state_dict(), half.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_weight_draws_no_other_weight_again(name: str, dtype: torch.dtype, tmp_path: Path):
    """Initialisation of the missing one must leave A_log, dt_bias, D and all others alone."""
    save(name, tmp_path)
    load_language_model(tmp_path, dtype=dtype).save_pretrained(tmp_path)
    written = load_language_model(tmp_path).state_dict()
    stored = load_file(tmp_path / "model.safetensors")
    head = [key for key in stored if "lm_head" in key] or ["model.final_layernorm.weight"]  # Zamba2's head is tied
    mixer = next((key for key in stored if key.endswith((".mixer.norm.weight", ".mamba.norm.weight"))), None)
    gone = [*head, *([mixer] if mixer else [])]
    save_file({k: v for k, v in stored.items() if k not in gone}, tmp_path / "model.safetensors", {"format": "pt"})
    found = load_language_model(tmp_path).state_dict()
    names = tuple(key.replace("backbone.", "model.") if key not in written else key for key in gone)
    assert_equal_weights(found, written, but=names)
    assert not any(torch.equal(found[key], written[key]) for key in names), "control: they were missing"


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoints_know_nothing_of_preparation(name: str, tmp_path: Path):
    save(name, tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert PACKED_SDPA not in text and "seq_idx" not in text
    native = AutoModelForCausalLM.from_config(families()[name].tiny())
    assert json.loads(text)["architectures"] == [type(native).__name__]
    assert json.loads(text)["model_type"] == name
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(opened) is type(native) and not any(is_prepared(module) for module in opened.modules())


def test_folder_as_string_or_path_and_result(folder: Path):
    ids = tokens(1, 10)
    logits = [load_language_model(source).eval()(input_ids=ids).logits for source in (folder, str(folder))]
    assert torch.equal(*logits)
    model = load_language_model(folder)
    assert is_prepared(model) and model.packing_enabled
    assert model(input_ids=ids, seq_idx=torch.zeros_like(ids)).logits.shape == (1, 10, 96)


def test_configuration_makes_random_weights_and_stays_as_it_was():
    config = families()["llama"].tiny()
    before = config.to_dict()
    torch.manual_seed(0)
    first, second = load_language_model(config, dtype=torch.bfloat16), load_language_model(config)
    assert (first.dtype, second.dtype) == (torch.bfloat16, torch.float32)
    assert not torch.equal(first.lm_head.weight.float(), second.lm_head.weight)
    assert config.to_dict() == before and config._attn_implementation != PACKED_SDPA
    config.dtype = torch.bfloat16
    for dtype in (None, "auto"):
        assert load_language_model(config, dtype=dtype).dtype == torch.bfloat16, "the configuration's"


def test_preset_names(tmp_path: Path, monkeypatch):
    model = load_language_model("tiny")
    assert sum(p.numel() for p in model.parameters()) == LLM_PRESETS["tiny"].parameters
    assert is_prepared(model)
    monkeypatch.chdir(tmp_path)
    save("llama", tmp_path / "tiny")
    assert load_language_model("tiny").config.model_type == "llama", "a folder of this name comes first"


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"], ids=str)
def test_dtype(folder: Path, dtype):
    for source in (folder, "tiny"):
        assert load_language_model(source, dtype=dtype).dtype == torch.bfloat16
        assert load_language_model(source).dtype == load_language_model(source, dtype="auto").dtype == torch.float32


@pytest.mark.parametrize(("asked", "used"), [("eager", "eager"), ("sdpa", PACKED_SDPA), (None, PACKED_SDPA)])
def test_attention(folder: Path, asked: str | None, used: str):
    ids = tokens(1, 30)
    wanted = AutoModelForCausalLM.from_pretrained(folder)
    for source in (folder, "tiny", families()["llama"].tiny()):
        model = load_language_model(source, attn_implementation=asked)
        assert model.config._attn_implementation == used
    model = load_language_model(folder, attn_implementation=asked).eval()
    assert (model(input_ids=ids).logits - wanted.eval()(input_ids=ids).logits).abs().max() <= 2e-5


def test_a_family_that_must_prove_its_packing_keeps_its_attention():
    model = load_language_model(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=96))
    assert is_prepared(model) and model.llm_family.packing_needs_proof


def test_patterns_in_a_checkpoint(folder: Path, tmp_path: Path):
    model = load_language_model(with_pattern(folder, tmp_path / "good", "M*-ME"))
    assert model.config.hybrid_override_pattern == "M*-ME"
    assert_equal_weights(model.state_dict(), load_language_model(folder).state_dict())
    bad = with_pattern(folder, tmp_path / "bad", "M*XME")
    with pytest.raises(ValueError, match=r"unknown letter 'X' at place 2") as error:
        load_language_model(bad)
    assert f"{bad}, config.json: hybrid_override_pattern 'M*XME'" in str(error.value)
    bad = edited(folder, tmp_path / "mtp", mtp_hybrid_override_pattern="*Y")
    with pytest.raises(ValueError, match=r"mtp_hybrid_override_pattern '\*Y': unknown letter 'Y' at place 1"):
        load_language_model(bad)
    with pytest.raises(ValueError, match="hybrid_override_pattern is empty"):
        load_language_model(NemotronHConfig(hybrid_override_pattern=""))


def test_unknown_names_say_what_was_tried(tmp_path: Path):
    """Offline, as tests are: transformers alone does not even repeat the name."""
    for source in ("nobody/nothing-7b", "gpt-none", tmp_path / "missing"):
        with pytest.raises(OSError, match="cannot open language model") as error:
            load_language_model(source)
        assert str(source) in str(error.value) and "no folder and no preset" in str(error.value)
        assert all(name in str(error.value) for name in LLM_PRESETS)
    with pytest.raises(OSError, match="'tinyy'; did you mean the preset 'tiny'"):
        load_language_model("tinyy")
    (tmp_path / "nothing-in-it").mkdir()
    with pytest.raises(OSError, match="nothing-in-it.*no config.json"):
        load_language_model(tmp_path / "nothing-in-it")
    with pytest.raises(OSError, match="nvidia/Nemotron-H-4B-Base-8K"):
        load_language_model("Nemotron-H-4B")


def test_a_folder_without_weights_or_with_a_broken_config(folder: Path, tmp_path: Path):
    out = edited(folder, tmp_path / "empty")
    (out / "model.safetensors").unlink()
    with pytest.raises(OSError, match=re.escape(str(out))):
        load_language_model(out)
    (out / "config.json").write_text("{")
    with pytest.raises(OSError, match="its config.json cannot be read") as error:
        load_language_model(out)
    assert str(out) in str(error.value)


def test_code_beside_the_weights_is_never_run(folder: Path, tmp_path: Path):
    """Neither after a question nor without one: a known type uses transformers' class, an unknown one is refused."""
    code = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.Y"}
    known = edited(folder, tmp_path / "known", auto_map=code)
    strange = edited(folder, tmp_path / "strange", auto_map=code, model_type="strange")
    for path in (known, strange):
        (path / "configuration_x.py").write_text(REMOTE)
        (path / "modeling_x.py").write_text(REMOTE)
    model = load_language_model(known)
    assert type(model).__module__ == "transformers.models.nemotron_h.modeling_nemotron_h"
    with pytest.raises(ValueError, match="model_type 'strange' is unknown to transformers .*never run") as error:
        load_language_model(strange)
    assert str(strange) in str(error.value) and "trust_remote_code" not in str(error.value)
    head_only = tmp_path / "head"
    head_only.mkdir()
    config = {"model_type": "clip", "auto_map": {"AutoModelForCausalLM": code["AutoModelForCausalLM"]}}
    (head_only / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no causal language model of model_type 'clip'"):
        load_language_model(head_only)


@pytest.mark.parametrize("config", [T5Config, CLIPConfig])
def test_no_causal_language_model(config: type):
    with pytest.raises(ValueError, match=f"no causal language model of model_type '{config.model_type}'"):
        load_language_model(config())


@pytest.mark.parametrize("source", [None, 3, ["tiny"], torch.nn.Linear(1, 1)], ids=lambda source: type(source).__name__)
def test_no_source_at_all(source):
    with pytest.raises(TypeError, match="a folder, a hub id, a preset name or a configuration"):
        load_language_model(source)


@pytest.mark.parametrize("dtype", ["float33", "Tensor", "bf16"])
def test_unknown_dtype(dtype: str):
    with pytest.raises(ValueError, match=f"dtype '{dtype}' is none of torch"):
        load_language_model("tiny", dtype=dtype)
