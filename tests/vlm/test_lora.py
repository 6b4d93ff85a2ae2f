"""LoRA through peft: one adapter folder with the projector in it, merged weights with the same logits, ties kept."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from tests.helpers.model_inputs import batch, mixed_samples, tiny_model
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration

TARGETS = r"language_model\..*\.(q_proj|k_proj|v_proj|o_proj|up_proj|down_proj)"


def logits(model, inputs: dict) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.fixture(params=[("nemotron_h", True), ("nemotron_h", False), ("llama", True)], ids=str)
def trained(request):
    """`(base, its family's peft model after two steps, inputs, tied)`; the base is a copy from before."""
    family, tied = request.param
    torch.manual_seed(0)
    model = tiny_model(family, text_tie_word_embeddings=tied)
    base = copy.deepcopy(model)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, modules_to_save=["multi_modal_projector"])
    adapted = get_peft_model(model, config)
    inputs = batch(*mixed_samples(), side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # lora_A gets its first gradient once lora_B has moved
        adapted.train()(**inputs, labels=labels).loss.backward()
        optimizer.step()
    grads = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.abs().max() > 0 for name, grad in grads.items()), "a trained part stood still"
    assert not any(p.requires_grad for name, p in adapted.named_parameters() if "vision_model" in name)
    return base, adapted, inputs, tied


def test_one_adapter_folder_brings_everything_back(trained, tmp_path):
    base, adapted, inputs, _ = trained
    before, expected = logits(base, inputs), logits(adapted, inputs)
    assert (before - expected).abs().max() > 1e-3, "the control: training changed something"
    adapted.save_pretrained(tmp_path)
    names = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert any("multi_modal_projector" in name for name in names)
    again = PeftModel.from_pretrained(base, tmp_path)
    assert torch.equal(logits(again, inputs), expected)


def test_merged_model_is_an_ordinary_checkpoint(trained, tmp_path):
    _, adapted, inputs, tied = trained
    expected = logits(adapted, inputs)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    again = RadioVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert (logits(again, inputs) - expected).abs().max() <= 1e-5
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
    assert {name.split(".")[0] for name in load_file(tmp_path / "model.safetensors")} == {
        "vision_model", "multi_modal_projector", "language_model",
    }  # fmt: skip
