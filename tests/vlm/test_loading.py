"""Saving and opening: Auto classes, strict weights, ties, old formats, precision, devices, quantisation."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, infer_auto_device_map
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText, BitsAndBytesConfig
from transformers.quantizers.quantizers_utils import should_convert_module

from tests.helpers.model_inputs import batch, mixed_samples, sample, tiny_config, tiny_model
from vlm.errors import RadioVLMError
from vlm.migrations import FORMAT_VERSION
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration
from vlm.quantized_loading import leave_vision_alone

FIXTURES = Path(__file__).parents[1] / "fixtures"
open_model = RadioVLMForConditionalGeneration.from_pretrained


def logits(model, inputs: dict) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny_model(tubelet=2).save_pretrained(tmp_path)
    return tmp_path


def edit_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForImageTextToText])
def test_auto_classes_open_the_same_model(auto, tmp_path):
    model, inputs = tiny_model(), batch(*mixed_samples())
    model.save_pretrained(tmp_path)
    again = auto.from_pretrained(tmp_path)
    assert type(again) is RadioVLMForConditionalGeneration
    assert torch.equal(logits(again, inputs), logits(model, inputs))


@pytest.mark.parametrize("family", ["nemotron_h", "llama", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_ties_survive_saving_training_and_saving_again(family, tied, tmp_path):
    model = tiny_model(family, text_tie_word_embeddings=tied)
    inputs = batch(*mixed_samples(), side="right")
    for step in ("first", "second"):
        source, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert (source is head) == tied and model.config.tie_word_embeddings == tied
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.train()(**inputs, labels=labels).loss.backward()
        optimizer.step()
        model.save_pretrained(tmp_path / step)
        stored = load_file(tmp_path / step / "model.safetensors")
        names = [name for name, p in model.named_parameters(remove_duplicate=False) if p is source or p is head]
        assert sum(name in stored for name in names) == (1 if tied else 2)
        again = open_model(tmp_path / step)
        assert torch.equal(logits(again, inputs), logits(model, inputs))
        model = again


def test_prefixes_of_weight_names_are_fixed(folder):
    prefixes = {name.split(".")[0] for name in load_file(folder / "model.safetensors")}
    assert prefixes == {"vision_model", "multi_modal_projector", "language_model"}
    assert set(load_file(folder / "model.safetensors")) == set(tiny_model(tubelet=2).state_dict())


@pytest.mark.parametrize("version", range(FORMAT_VERSION + 1))
def test_old_checkpoints_still_open(version, tmp_path):
    old = FIXTURES / f"checkpoint_v{version}"
    want = load_file(old / "expected.safetensors")["logits"]
    inputs = batch(*mixed_samples(summary=2 if version == 2 else 0))
    for opened in (open_model(old), AutoModel.from_pretrained(old)):
        torch.testing.assert_close(logits(opened, inputs)[:, -1], want, atol=1e-5, rtol=1e-4)
    opened.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == FORMAT_VERSION
    torch.testing.assert_close(logits(open_model(tmp_path), inputs)[:, -1], want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "multi_modal_projector.linear_2.weight",
        "vision_model.encoder.layer.1.layer_scale1.lambda1",  # transformers forgives this one silently
        "vision_model.embeddings.video_patch_projection.weight",
        "language_model.lm_head.weight",
    ],
)
def test_missing_weights_are_an_error(folder, name):
    edit_weights(folder, lambda state: state.pop(name))
    for opener in (open_model, AutoModel.from_pretrained):
        with pytest.raises(RadioVLMError, match=f"missing_keys: {name}"):
            opener(folder)


def test_unexpected_and_misshapen_weights_are_an_error(folder):
    edit_weights(folder, lambda state: state.update({"sound_encoder.weight": torch.zeros(2)}))
    with pytest.raises(RadioVLMError, match="unexpected_keys: sound_encoder.weight"):
        open_model(folder)
    edit_weights(folder, lambda state: state.pop("sound_encoder.weight"))
    edit_weights(folder, lambda state: state.update({"multi_modal_projector.linear_2.weight": torch.zeros(2, 2)}))
    with pytest.raises((RadioVLMError, RuntimeError), match="linear_2|size mismatch|mismatched"):
        open_model(folder)


def test_loading_info_is_still_available(folder):
    model, info = open_model(folder, output_loading_info=True)
    assert not info["missing_keys"] and isinstance(model, RadioVLMForConditionalGeneration)


def test_bfloat16_keeps_its_float32_islands(folder):
    model = open_model(folder, dtype=torch.bfloat16)
    islands = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    leaves = {name.rsplit(".", 1)[-1] for name in islands}
    assert leaves == {"position_embedding", "A_log", "dt_bias", "D"}
    buffers = {name: buffer.dtype for name, buffer in model.named_buffers() if "norm_" in name}
    assert set(buffers.values()) == {torch.float32} and len(buffers) == 2
    inputs = batch(*mixed_samples(2))
    exact, rough = logits(open_model(folder), inputs), logits(model, inputs).float()
    real = inputs["attention_mask"].bool()
    error, scale = (rough - exact)[real].abs(), exact[real].std()
    assert error.mean() < 0.03 * scale and error.max() < 0.25 * scale
    assert torch.isfinite(model.generate(**inputs, max_new_tokens=3, output_logits=True, return_dict_in_generate=True)
                          .logits[-1]).all()  # fmt: skip


def test_half_precision_survives_saving_and_opening_as_stored(folder, tmp_path):
    open_model(folder, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"
    again = open_model(tmp_path / "half", dtype="auto")
    assert again.dtype == torch.bfloat16 and again.get_output_embeddings().weight.dtype == torch.bfloat16
    assert again.vision_model.embeddings.position_embedding.dtype == torch.float32


def test_attn_implementation_reaches_both_parts(folder):
    inputs = batch(*mixed_samples(2))
    models = {name: open_model(folder, attn_implementation=name) for name in ("eager", "sdpa")}
    for name, model in models.items():
        assert model.vision_model.config._attn_implementation == name
        assert model.language_model.config._attn_implementation == name
    real = inputs["attention_mask"].bool()
    eager, sdpa = (logits(models[name], inputs)[real] for name in ("eager", "sdpa"))
    torch.testing.assert_close(eager, sdpa, atol=2e-5, rtol=1e-4)
    split = open_model(folder, attn_implementation={"vision_config": "eager", "text_config": "sdpa"})
    assert split.vision_model.config._attn_implementation == "eager"
    assert split.language_model.config._attn_implementation == "sdpa"


def test_device_map_auto_and_offload(folder):
    inputs = batch(*mixed_samples(2))
    want = logits(open_model(folder), inputs)
    placed = open_model(folder, device_map="auto")
    torch.testing.assert_close(logits(placed, inputs), want, atol=1e-5, rtol=1e-4)
    offloaded = cpu_offload(open_model(folder), execution_device="cpu")
    torch.testing.assert_close(logits(offloaded, inputs), want, atol=1e-5, rtol=1e-4)


def test_blocks_are_never_split_over_devices():
    with torch.device("meta"):
        model = RadioVLMForConditionalGeneration(tiny_config())
    assert set(model._no_split_modules) == {"RadioLayer", "NemotronHBlock"}
    sizes = sum(p.numel() * 4 for p in model.parameters())
    plan = infer_auto_device_map(
        model, max_memory={0: sizes // 3, 1: sizes // 3, "cpu": sizes}, no_split_module_classes=model._no_split_modules
    )
    assert len(set(plan.values())) > 1
    for name in plan:
        assert not name.startswith(("vision_model.encoder.layer.", "language_model.model.layers.")) or (
            name.count(".") == 3
        ), name


@pytest.mark.parametrize("make", [lambda: BitsAndBytesConfig(load_in_8bit=True), lambda: {"load_in_4bit": True}])
def test_quantised_loading_leaves_encoder_and_projector_alone(make):
    config = leave_vision_alone(make())
    skipped = config["llm_int8_skip_modules"] if isinstance(config, dict) else config.llm_int8_skip_modules
    with torch.device("meta"):
        model = RadioVLMForConditionalGeneration(tiny_config())
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    converted = [name for name in linear if should_convert_module(name, skipped)]
    assert converted and all(name.startswith("language_model.model.") for name in converted)
    named = leave_vision_alone(BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["mixer.out_proj"]))
    assert set(named.llm_int8_skip_modules) >= {"mixer.out_proj", "vision_model", "multi_modal_projector"}


def test_quantisation_config_is_completed_on_the_way_in(folder, monkeypatch):
    from transformers import PreTrainedModel

    seen = {}

    def stop(cls, *args, **kwargs):
        seen.update(kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(stop))
    with pytest.raises(KeyboardInterrupt):
        open_model(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    assert "vision_model" in seen["quantization_config"].llm_int8_skip_modules


def test_generation_config_is_kept(tmp_path):
    model = tiny_model()
    model.generation_config.eos_token_id = [2, 7]
    model.save_pretrained(tmp_path)
    assert open_model(tmp_path).generation_config.eos_token_id == [2, 7]


def test_resizing_embeddings_goes_through_the_language_model(tmp_path):
    model = tiny_model()
    model.resize_token_embeddings(128, mean_resizing=False)
    assert model.config.text_config.vocab_size == 128
    assert model.get_output_embeddings().weight.shape[0] == model.get_input_embeddings().weight.shape[0] == 128
    model.save_pretrained(tmp_path)
    inputs = batch(sample(2, (2, 2), 3))
    assert torch.equal(logits(open_model(tmp_path), inputs), logits(model, inputs))
