"""Recomputed activations and compiled blocks, part by part: same loss and gradients; blocks run as often as asked."""

import copy

import pytest
import torch

from llm.prepare import prepare_language_model
from tests.helpers.small_training import batches_of, mixed_samples
from tests.helpers.stage_runs import small_vlm
from training.recipe import RecipeError
from training.recipe.loading import load_recipe
from training.towers import blocks_of, compile_blocks, prepare_towers


@pytest.fixture(scope="module")
def built():
    model, processor = small_vlm()
    prepare_language_model(model.language_model)
    batch = batches_of(processor, mixed_samples(processor), 8)[0]
    return model, {key: value for key, value in batch.items() if key not in ("sources", "sample_ids")}


def run(model, batch) -> tuple[float, dict[str, torch.Tensor], dict[str, int]]:
    """Loss, gradients, and how often the norms of each part ran."""
    calls = {"vision": 0, "text": 0}

    def count(name: str):
        def hook(module, args, out):
            calls[name] += 1

        return hook

    handles = [model.vision_model.encoder.layer[0].norm1.register_forward_hook(count("vision"))]
    handles += [layer.norm.register_forward_hook(count("text")) for layer in model.language_model.model.layers]
    model.train()
    loss = model(**batch).loss
    loss.backward()
    for handle in handles:
        handle.remove()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}, calls


WORDS = {
    "vision": (["modules.vision.gradient_checkpointing=true"], {"vision": 2, "text": 1}),
    "text": (["modules.text.gradient_checkpointing=true"], {"vision": 1, "text": 2}),
    "all": (["train.gradient_checkpointing=true"], {"vision": 2, "text": 2}),
    "all but vision": (["train.gradient_checkpointing=true", "modules.vision.gradient_checkpointing=false"],
                       {"vision": 1, "text": 2}),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_recomputing_changes_nothing_but_the_memory(built, case: str):
    words, times = WORDS[case]
    plain, batch = copy.deepcopy(built[0]), built[1]
    model = copy.deepcopy(plain)
    prepare_towers(model, load_recipe(None, words))
    wanted, found = run(plain, batch), run(model, batch)
    assert found[2] == {name: times[name] * calls for name, calls in wanted[2].items()}
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-7, rtol=1e-5, msg=name)


def saved_bytes(model, batch) -> int:
    """Bytes that the forward keeps for the backward, each memory once."""
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**batch).loss
    loss.backward()
    return sum(kept.values())


def test_recomputing_saves_memory(built):
    model = copy.deepcopy(built[0])
    before = saved_bytes(model, built[1])
    prepare_towers(model, load_recipe(None, ["train.gradient_checkpointing=true"]))
    assert saved_bytes(model, built[1]) < 0.8 * before


def test_a_part_without_blocks_is_refused(built):
    for option in ("gradient_checkpointing", "compile"):
        words = [f"modules.projector.{option}=true"]
        with pytest.raises(RecipeError, match=f"modules.projector.{option} = true"):
            prepare_towers(copy.deepcopy(built[0]), load_recipe(None, words))


@pytest.mark.parametrize("tower", ["vision_model", "language_model"])
def test_compiled_blocks_compute_the_same_under_the_same_names(built, tower: str):
    """By a counting backend: the tracing is the real one, the code generator is not (it needs a compiler)."""
    import torch._dynamo
    from torch._dynamo.testing import CompileCounterWithBackend

    plain, batch = copy.deepcopy(built[0]), built[1]
    model = copy.deepcopy(plain)
    counter = CompileCounterWithBackend("eager")
    torch._dynamo.reset()
    assert compile_blocks(getattr(model, tower), backend=counter) == len(blocks_of(getattr(model, tower)))
    assert list(model.state_dict()) == list(plain.state_dict())
    wanted, found = run(plain, batch), run(model, batch)
    assert counter.frame_count > 0
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-3, msg=name)


def test_compiling_says_where_it_cannot(built, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    with pytest.raises(RecipeError, match="switched off in this process"):
        prepare_towers(copy.deepcopy(built[0]), load_recipe(None, ["modules.text.compile=true"]))
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    model = copy.deepcopy(built[0])
    next(model.parameters()).ds_id = 0
    with pytest.raises(RecipeError, match="ZeRO-3"):
        prepare_towers(model, load_recipe(None, ["modules.text.compile=true"]))
