"""Deep models are planned from shallow ones: the same figures as from the whole model."""

import pytest
import torch
from transformers import NemotronHConfig, RadioConfig

from llm.prepare import prepare_language_model
from llm.tiny_tokenizer import build_byte_tokenizer
from training.plan.batch import PlannedBatch
from training.plan.deep_step import step_memory
from training.plan.estimate import switch_checkpointing
from training.plan.live_bytes import LiveBytes
from training.plan.meta_step import meta_step
from vlm.build import build_vlm


@pytest.fixture(scope="module")
def model():
    vision = RadioConfig(hidden_size=64, num_hidden_layers=6, num_attention_heads=4, max_img_size=256, image_size=256)
    text = NemotronHConfig(
        hybrid_override_pattern="M-M-M*-M-M-M*-M-M-", vocab_size=384, hidden_size=128, intermediate_size=512,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, mamba_num_heads=4, mamba_head_dim=64,
        ssm_state_size=32, n_groups=1, chunk_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=4,
    )  # fmt: skip
    with torch.device("meta"):
        built, _ = build_vlm(vision, text, build_byte_tokenizer())
    prepare_language_model(built.language_model)
    return built.train()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("frozen", [(), ("vision_model", "language_model")])
def test_the_same_as_the_whole_model(model, checkpointing, frozen):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen or ("none",)))
    switch_checkpointing(model, checkpointing)
    batch = PlannedBatch(1, 1024, ((16, 16),) * 8, 2048, 512, packed=True)
    blocks = len(model.vision_model.encoder.layer), len(model.language_model.model.layers)
    whole, deep = meta_step(model, batch), step_memory(model, batch)
    for name in ("inputs", "encoder", "forward", "forward_peak", "peak"):
        assert getattr(deep, name) == pytest.approx(getattr(whole, name), rel=0.02), name
    assert 0.99 <= deep.peak_with_gradients / whole.peak_with_gradients <= 1.15  # an upper bound
    assert blocks == (6, 18) == (len(model.vision_model.encoder.layer), len(model.language_model.model.layers))


def test_live_bytes_counts_storages_once_and_frees_them():
    weight = torch.zeros(10, 10)
    with LiveBytes([weight]) as memory:
        first = weight @ weight
        view = first[:2].t()
        assert memory.now == 400
        second = first + 1
        del first
        assert memory.now == 800  # the view still holds it
        del view
        assert memory.now == 400 and memory.peak == 800
        memory.park(1000)
        del second
        assert memory.now == 0 and memory.peak_parked == 1400


def test_very_long_rows_follow_from_shorter_ones(model, monkeypatch):
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    switch_checkpointing(model, True)
    batch = PlannedBatch(1, 4096, ((16, 16),) * 16, 4096, 1024, packed=True)
    whole = meta_step(model, batch)
    monkeypatch.setattr("training.plan.deep_step._LONG", 1024)
    long = step_memory(model, batch)
    assert long.peak == pytest.approx(whole.peak, rel=0.02)
    assert long.forward == pytest.approx(whole.forward, rel=0.02)
