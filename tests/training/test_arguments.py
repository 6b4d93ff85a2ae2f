"""What a recipe becomes for transformers and DeepSpeed: one device a process, and a DeepSpeed JSON that cannot overrule
the recipe or lose a run."""

import json
import logging
from pathlib import Path

import pytest
import torch

from tests.helpers.small_training import ALONE
from training.arguments import training_arguments, zero_stage
from training.deepspeed_file import ZERO_FOLDER, deepspeed_config, offloads, read_deepspeed
from training.environment import Machine
from training.recipe import ZERO_CHOICES, RecipeError
from training.recipe.loading import load_recipe


def written(folder: Path, zero: dict | None = None, **blocks) -> str:
    """`train.zero=FILE` of a JSON of one's own, zero2's unless `zero` says otherwise."""
    config = read_deepspeed("zero2") | blocks
    config["zero_optimization"] = zero or config["zero_optimization"]
    path = folder / "mine.json"
    path.write_text(json.dumps(config))
    return f"train.zero={path}"


def test_a_process_alone_trains_on_one_of_many_gpus(tmp_path, monkeypatch):
    """... and is not made to split its batches over all of them, which the model refuses."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    recipe = load_recipe(None, [f"output_dir={tmp_path}", "precision=fp32", "per_device_batch_size=3"])
    args = training_arguments(recipe, Machine(rank=0, local_rank=0, world_size=1, device="cuda", launched=False))
    assert args.n_gpu == 1 and args.train_batch_size == 3


def test_offload_without_a_launcher_is_refused_and_zero_says_that_it_is_not_used(tmp_path, caplog, monkeypatch):
    moved = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    for word in ("zero=zero2_offload", "zero=zero3_offload", written(tmp_path, moved)):
        with pytest.raises(RecipeError, match="deepspeed --num_accelerators 1"):
            zero_stage(load_recipe(None, [word]), ALONE)
    recipe = load_recipe(None, ["zero=zero3", f"output_dir={tmp_path}"])
    with caplog.at_level(logging.INFO, "training"):
        monkeypatch.setattr(logging.getLogger("training"), "propagate", True)
        args = training_arguments(recipe, ALONE)
    assert args.deepspeed is None and zero_stage(recipe, ALONE) == 0
    assert "train.zero = zero3" in caplog.text and "without DeepSpeed" in caplog.text


@pytest.mark.parametrize("zero", ZERO_CHOICES[1:])
def test_the_shipped_files_are_what_their_names_say(zero: str):
    config = deepspeed_config(load_recipe(None, [f"zero={zero}"]))
    moved = {"zero2_offload": {"optimizer"}, "zero3_offload": {"optimizer", "param"}}
    assert (config["zero_optimization"]["stage"], offloads(config)) == (int(zero[4]), moved.get(zero, set()))


@pytest.mark.parametrize("block", ["optimizer", "scheduler"])
def test_blocks_that_overrule_the_recipe_are_refused(tmp_path, block: str):
    recipe = load_recipe(None, [written(tmp_path, **{block: {"type": "auto", "params": {}}})])
    with pytest.raises(RecipeError, match=f'"{block}" block.*train.{block[:5]}'):
        deepspeed_config(recipe)


def test_a_model_trained_in_shards_can_always_be_written(tmp_path):
    config = deepspeed_config(load_recipe(None, [written(tmp_path, {"stage": 3})]))
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def test_an_optimizer_that_does_not_tell_bad_gradients_is_refused(tmp_path):
    wide = {"data_types": {"grad_accum_dtype": "fp32"}}
    with pytest.raises(RecipeError, match="grad_accum_dtype"):
        deepspeed_config(load_recipe(None, [written(tmp_path, {"stage": 1}, **wide)]))
    assert deepspeed_config(load_recipe(None, [written(tmp_path, {"stage": 2}, **wide)]))


def test_quantized_weights_and_shards_are_refused_whatever_the_file_is_called(tmp_path):
    words = ["adapter.rank=4", "adapter.quantize=nf4"]
    with pytest.raises(RecipeError, match="adapter.quantize = nf4 and stage 3"):
        deepspeed_config(load_recipe(None, [*words, written(tmp_path, {"stage": 3})]))
    assert deepspeed_config(load_recipe(None, [*words, written(tmp_path)]))


def test_compiled_blocks_and_shards_are_refused_whatever_the_file_is_called(tmp_path):
    with pytest.raises(RecipeError, match="modules.text.compile = true and stage 3"):
        deepspeed_config(load_recipe(None, ["modules.text.compile=true", written(tmp_path, {"stage": 3})]))
    assert deepspeed_config(load_recipe(None, ["modules.text.compile=true", written(tmp_path)]))


def test_muon_needs_its_matrices_where_it_steps(tmp_path):
    for moved in ({"offload_optimizer": {"device": "cpu"}}, {"cpu_offload": True}):
        with pytest.raises(RecipeError, match="muon"):
            deepspeed_config(load_recipe(None, ["optimizer=muon", written(tmp_path, {"stage": 2, **moved})]))
    stays = written(tmp_path, {"stage": 2, "offload_optimizer": {"device": "none"}})
    config = deepspeed_config(load_recipe(None, ["optimizer=muon", stays]))
    assert config["zero_optimization"]["reduce_scatter"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not valid JSON"), ("[]", "stage of 1, 2 or 3"), ('{"zero_optimization": {"stage": 0}}', "train.zero=none")],
)
def test_a_file_that_is_none_is_named(tmp_path, text, said):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(RecipeError, match=f"mine.json.*{said}"):
        read_deepspeed(str(tmp_path / "mine.json"))
    with pytest.raises(RecipeError, match="nowhere.json does not exist"):
        read_deepspeed("nowhere.json")
    assert {path.stem for path in ZERO_FOLDER.glob("*.json")} == set(ZERO_CHOICES[1:])
