"""What ZeRO holds, against sums made by hand; the batch that is planned for."""

import json
from dataclasses import replace

import pytest

from tests.helpers.stage_runs import small_vlm
from training.deepspeed_file import read_deepspeed
from training.plan.batch import PlannedBatch, planned_batch
from training.plan.estimate import _cheapest_first, _smaller, barred_zeros
from training.plan.meta_step import StepMemory
from training.plan.states import Weights, gpu_memory, weights_of
from training.recipe import ZERO_CHOICES, Recipe
from training.recipe.loading import load_recipe

N = 1_000_000_000  # parameters, all bf16 and all trained with AdamW
WEIGHTS = Weights(held=2 * N, trained=2 * N, numbers=N, moments=8 * N, total=N, largest=N / 10, dequantized=0, ema=0,
                  hidden=1000)  # fmt: skip
STEP = StepMemory(0, 0, 0, 4e9, 5e9, 6e9, 7e9)
BUCKETS = 2 * 200_000_000  # of training/zero/zero1.json and zero2.json


def test_sums_by_hand():
    recipe = load_recipe(None, [])
    one = {zero: gpu_memory(WEIGHTS, STEP, recipe, zero, 8, True, True)
           for zero in ZERO_CHOICES}  # fmt: skip
    # fp32 weights, gradients, two moments; bf16 copies of autocast and DDP's buckets
    assert one["none"].total == 16 * N + 2 * N + 4 * N + STEP.peak
    assert one["zero1"].total == 2 * N + 2 * N + 12 * N / 8 + BUCKETS + STEP.peak
    assert one["zero2"].total == 2 * N + 2 * N / 8 + 12 * N / 8 + BUCKETS + STEP.peak
    assert one["zero3"].weights + one["zero3"].gradients + one["zero3"].optimizer == 16 * N / 8
    assert one["zero3_offload"].host == 16 * N / 8 and one["zero3_offload"].weights == 0
    # optimizer and gradients on the host, those in fp32 and (of several passes) as they come; a buffer of the largest
    offload = one["zero2_offload"]
    assert offload.host == 12 * N / 8 + 4 * N / 8 + 2 * N / 8
    assert offload.total == 2 * N + BUCKETS + N / 10 + STEP.peak
    assert one["zero3"].buffers > one["zero2"].buffers  # whole weights are gathered
    # a single pass: gradients come while activations go, so both are never there in full
    single = gpu_memory(WEIGHTS, STEP, recipe, "zero1", 8, True, False)
    assert single.total == 2 * N + 12 * N / 8 + BUCKETS + STEP.peak_with_gradients


def test_a_deepspeed_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 10_000_000}}))
    recipe = load_recipe(None, [])
    mine = gpu_memory(WEIGHTS, STEP, recipe, str(path), 8, True, True)
    shipped = gpu_memory(WEIGHTS, STEP, recipe, "zero3", 8, True, True)
    assert mine.total < shipped.total


@pytest.mark.parametrize("base", ["zero2", "zero3"])
def test_an_optimizer_on_the_host_is_counted_there_whatever_the_file_is_called(tmp_path, base):
    config = read_deepspeed(base)
    config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    recipe = load_recipe(None, [])
    mine, shipped = (gpu_memory(WEIGHTS, STEP, recipe, zero, 8, True, True) for zero in (str(path), base))
    assert mine.weights == shipped.weights > 0  # those stay
    assert mine.optimizer == mine.gradients == 0 and mine.host >= shipped.optimizer + shipped.gradients
    if base == "zero2":
        assert mine == gpu_memory(WEIGHTS, STEP, recipe, "zero2_offload", 8, True, True)


@pytest.mark.parametrize(
    ("words", "barred"),
    [
        ([], []),
        (["optimizer=muon"], ["zero2_offload", "zero3_offload"]),  # its update wants whole matrices on the GPU
        (["adapter={rank: 4, quantize: nf4}"], ["zero3", "zero3_offload"]),
        (["modules.vision.compile=true"], ["zero3", "zero3_offload"]),
    ],
)
def test_what_helps_is_something_the_recipe_can_do(words, barred):
    found = barred_zeros(load_recipe(None, ["zero=none", *words]))
    assert sorted(found) == barred
    order = ["none", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"]
    assert _cheapest_first(found) == [zero for zero in order if zero not in barred]


def test_shorter_rows_that_are_advised_can_be_set():
    recipe = load_recipe(None, ["packing=true", "max_length=1024", "pack_length=8192"])
    found = dict(_smaller(PlannedBatch(2, 8192, packed=True), recipe))
    assert [(batch.rows, batch.length) for batch in found.values()] == [(1, 8192), (1, 4096), (1, 2048), (1, 1024)]
    for words in found:
        load_recipe(None, ["packing=true", "max_length=1024", "pack_length=8192", *words.split()])
    assert not list(_smaller(PlannedBatch(1, 512), load_recipe(None, ["max_length=512"])))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pictures_fill_their_share_of_the_batch(share):
    from tests.helpers.step_memory import DEEP_EXAMPLE, tiny_model

    model, _ = tiny_model(DEEP_EXAMPLE)
    recipe = load_recipe(None, ["packing=true", "max_length=2048", "per_device_batch_size=2"])
    batch = planned_batch(recipe, model.config, share)
    assert (batch.rows, batch.length, batch.packed) == (2, 2048, True)
    assert batch.image_tokens == pytest.approx(share * batch.tokens, rel=0.05)
    assert batch.patches == 4 * batch.image_tokens == sum(h * w for h, w in batch.grids)


def test_a_teacher_is_whole_on_every_gpu():
    with_teacher, recipe = replace(WEIGHTS, teacher=2 * N), Recipe()
    for zero, more in (("zero2", 2 * N), ("zero3", 2 * N), ("none", 4 * N)):
        plain, held = (gpu_memory(one, STEP, recipe, zero, 8, True, True) for one in (WEIGHTS, with_teacher))
        assert held.total - plain.total == pytest.approx(more), zero


def test_a_teacher_costs_a_model_or_what_trains_beside_adapters():
    model, _ = small_vlm()
    projector = model.requires_grad_(False).multi_modal_projector.requires_grad_(True)
    beside = 4 * sum(parameter.numel() for parameter in projector.parameters())
    for words, expected in (
        ((), 0),
        (("distill.weight=1",), 4 * model.num_parameters()),
        (("distill.weight=1", "adapter.rank=4"), beside),
        (("distill.weight=1", "adapter.rank=4", "distill.teacher=b"), 4 * model.num_parameters()),
    ):
        assert weights_of(model, [], load_recipe(None, ["model=a", *words])).teacher == expected, words
