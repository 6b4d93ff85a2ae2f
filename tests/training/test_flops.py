"""Operations counted from a model's layers against torch's own count of what it runs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llm import load_language_model
from llm.tiny_tokenizer import build_byte_tokenizer
from projectors.registry import projector_names
from tests.helpers.stage_runs import small_parts, small_vlm
from training.flops import DEVICE_TFLOPS, ModelFlops, device_tflops, forward_flops, step_flops
from vlm.build import build_vlm

TOKENS, SIDE = 256, 8


def language(model_type: str, **sizes):
    from transformers import LlamaConfig, NemotronHConfig

    if model_type == "llama":
        config = LlamaConfig(vocab_size=500, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                             num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    else:
        config = NemotronHConfig(hybrid_override_pattern="MM*-", vocab_size=300, hidden_size=128, head_dim=32,
                                 intermediate_size=256, num_attention_heads=4, num_key_value_heads=2,
                                 mamba_num_heads=8, mamba_head_dim=32, ssm_state_size=64, n_groups=2,
                                 chunk_size=64)  # fmt: skip
    torch.manual_seed(0)
    return load_language_model(config).train()


def counted(run, backward: bool) -> int:
    # torch counts no fused attention on CPUs
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = run()
        if backward:
            loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("model_type", ["llama", "nemotron_h"])
@pytest.mark.parametrize("backward", [False, True])
def test_language_models(model_type, backward):
    model = language(model_type)
    ids = torch.randint(5, 250, (1, TOKENS))
    found = counted(lambda: model(ids, use_cache=False).logits.sum(), backward)
    ours = (step_flops if backward else forward_flops)(model, TOKENS)
    assert ours == pytest.approx(found, rel=0.06)


def test_attention_counts_samples_not_rows():
    model = ModelFlops(language("llama"))
    assert model.forward(TOKENS, lengths=[TOKENS]) - model.forward(TOKENS, lengths=[TOKENS // 2] * 2) == (
        3 * 4 * 128 * TOKENS**2 // 2
    )


@pytest.mark.parametrize("frozen", [(), ("vision",), ("vision", "text"), ("text",)])
def test_vision_language_models(frozen):
    model, _ = small_vlm()
    model.train()
    for name, parameter in model.named_parameters():
        tower = {"vision_model": "vision", "multi_modal_projector": "projector"}.get(name.split(".")[0], "text")
        parameter.requires_grad_(tower not in frozen)
    grids = torch.tensor([[SIDE, SIDE]] * 3)
    pixels = torch.rand(3 * SIDE * SIDE, 768)

    def encoder():
        return model.media_tokens(pixel_values=pixels, image_grid_hw=grids).images.sum()

    patches, lengths = 3 * SIDE * SIDE, [SIDE * SIDE] * 3
    flops = ModelFlops(model)
    assert flops.forward(0, patches, [0], lengths) == pytest.approx(counted(encoder, backward=False), rel=0.03)
    assert flops.step(0, patches, [0], lengths) == pytest.approx(counted(encoder, backward=True), rel=0.06)


@pytest.mark.parametrize("name", projector_names())
def test_projectors(name):
    vision, text = small_parts()
    torch.manual_seed(0)
    model, _ = build_vlm(vision, text, build_byte_tokenizer(), projector={"type": name})
    grids = torch.tensor([[12, 12]] * 2)
    pixels = torch.rand(2 * 12 * 12, 768)
    found = counted(lambda: model.media_tokens(pixel_values=pixels, image_grid_hw=grids).images.sum(), backward=False)
    ours = ModelFlops(model).forward(0, 2 * 12 * 12, [0], [144] * 2)
    assert ours == pytest.approx(found, rel=0.1)


def test_a_frozen_encoder_costs_its_forward_alone():
    model, _ = small_vlm()
    for parameter in model.vision_model.parameters():
        parameter.requires_grad_(False)
    flops = ModelFlops(model)
    vision = [load for load in flops.loads if load.tower == "vision"]
    assert vision and not flops.passes["vision"] and flops.passes["projector"]
    assert not any(load.trains for load in vision)


def test_devices():
    assert device_tflops("NVIDIA H100 80GB HBM3") == DEVICE_TFLOPS["H100"]
    assert device_tflops("NVIDIA H100 PCIe") == DEVICE_TFLOPS["H100 PCIe"]
    assert device_tflops("NVIDIA GH200 480GB") == DEVICE_TFLOPS["GH200"]
    assert device_tflops("NVIDIA L40S") == DEVICE_TFLOPS["L40S"] and device_tflops("NVIDIA L4") == 121
    assert device_tflops("some chip") is None
