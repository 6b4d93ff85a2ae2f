"""Every stage of every real recipe: its model has the published size, and the stage runs with a tiny model of the same
kind in its place, on a small corpus in place of its data.
"""

import dataclasses
import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from tests.helpers.data_folders import record, write_image, write_records
from tests.helpers.stage_runs import losses, small_parts
from training.environment import Machine
from training.pipeline.folder import build_flags, read_folder
from training.plan.models import planned_model
from training.recipe import Recipe
from training.recipe.loading import load_recipe
from training.stage import train_stage

FOLDER = Path(__file__).resolve().parents[2] / "training/recipes"
FOLDERS = [path for path in sorted(FOLDER.iterdir()) if path.name != "tiny"]
STAGES = [(folder, stage.path) for folder in FOLDERS for stage in read_folder(folder).stages]
MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
# encoder, projector and language model of each recipe, counted by hand from the published sizes
TEXT = {
    "Nemotron-Nano-12B-v2": 12_310_001_152, "Nemotron-Nano-9B-v2": 8_888_227_328, "Nemotron-H-4B": 4_489_223_040,
    "Llama-3.1-8B-Instruct": 8_030_261_248, "Vicuna-7B-v1.5": 6_738_415_616,
}  # fmt: skip
VISION = {"C-RADIOv2-VLM-H": 651_724_800, "C-RADIOv4-H": 651_727_360, "C-RADIOv4-SO400M": 431_299_440}
SMALL_GEOMETRY = {
    "tiles": {"mode": "tiles", "tile_size": 64, "max_tiles": 4},
    "dynamic": {"mode": "dynamic", "min_num_patches": 4, "max_num_patches": 16},
    "fixed": {"mode": "fixed", "size": [64, 64]},
}


def parts_of(folder: Path) -> dict:
    """What its model is made of, whether the recipe builds it or starts from a trained one."""
    pipeline = read_folder(folder)
    return pipeline.build or pipeline.sizes


@cache
def real_model(folder: Path):
    """(model on the meta device, processor) of a recipe folder."""
    return planned_model(Recipe(), parts_of(folder), bf16=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_model_has_its_published_size(folder):
    build = parts_of(folder)
    model, _ = real_model(folder)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts["vision_model"] == VISION[build["vision"]]
    assert counts["language_model"] == TEXT[build["llm"]]
    assert all(parameter.is_meta for parameter in model.parameters())
    if "12b" in folder.name:  # RMSNorm(5120), 5120 -> 20480 -> 5120 without biases
        assert counts["multi_modal_projector"] == 5120 + 2 * 5120 * 20480
        assert model.config.geometry["max_tiles"] == 12
    if "llava" in folder.name:  # LayerNorm(1280), 1280 -> 4096 -> 4096 with biases
        assert counts["multi_modal_projector"] == 2 * 1280 + 1280 * 4096 + 4096 * 4096 + 2 * 4096


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_stages_follow_one_another_and_new_takes_the_build_lines(folder):
    from vlm.cli.main import build_parser

    pipeline = read_folder(folder)
    recipes = [load_recipe(stage.path) for stage in pipeline.stages]
    for before, after in zip(recipes, recipes[1:]):
        assert after.model == before.output_dir
    args = build_parser().parse_args(["new", *build_flags(parts_of(folder), "out")])
    assert args.vision == parts_of(folder)["vision"] and args.llm == parts_of(folder)["llm"]
    assert not (pipeline.build and pipeline.sizes)
    assert bool(pipeline.build) == recipes[0].model.endswith("stage0"), "an untrained model is a stage0"
    assert (folder / "README.md").is_file()


@cache
def tiny_model(folder: Path, out: Path) -> Path:
    """A saved model of the recipe's families with the same projector and kind of geometry, a few thousand weights."""
    from llm.tiny_tokenizer import build_byte_tokenizer
    from vlm.build import build_vlm

    real, _ = real_model(folder)
    vision, text = small_parts()
    if real.config.text_config.model_type == "llama":
        text = LlamaConfig(vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                           num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, bos_token_id=1,
                           eos_token_id=4)  # fmt: skip
    projector = {**(parts_of(folder).get("projector") or {})}
    projector.pop("hidden_size", None)
    torch.manual_seed(0)
    geometry = SMALL_GEOMETRY[real.config.geometry["mode"]]
    model, processor = build_vlm(vision, text, build_byte_tokenizer(), projector=projector, geometry=geometry)
    assert model.config.projector_config["type"] == real.config.projector_config["type"]
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Pictures and text of several lengths."""
    folder = tmp_path_factory.mktemp("corpus")
    records = []
    for i in range(12):
        images = ()
        if i % 3:
            write_image(folder / f"{i}.png", color=(20 * i, 255 - i, 3 * i), size=(64, 32 + i % 2 * 32))
            images = (f"{i}.png",)
        records.append(record(f"s{i}", question=f"number {i}?", answer=str(10 + i) * (1 + i % 4), images=images))
    return write_records(folder, records)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize(("folder", "path"), STAGES, ids=lambda path: path.stem)
def test_each_stage_runs_at_tiny_width(folder, path, corpus, models, tmp_path):
    model = tiny_model(folder, models / folder.name)
    words = [f"model={model}", f"output_dir={tmp_path}", "data.root=null", "max_length=256", "num_workers=0",
             "packing_buffer=12", "max_steps=2", "global_batch_size=null", "gradient_accumulation_steps=1",
             "per_device_batch_size=2", "zero=none", "precision=fp32", "save_steps=0", "log_steps=1",
             "watch.report_to=[]", "context_parallel=1", "adapter.quantize=null"]  # fmt: skip
    recipe = load_recipe(path, words)
    sources = [dataclasses.replace(source, path=str(corpus), media_root=None, name=f"part{index}")
               for index, source in enumerate(recipe.data.sources)]  # fmt: skip
    recipe.data.sources, recipe.data.eval_sources = sources, recipe.data.eval_sources and sources[:1]
    if recipe.data.packing:
        recipe.train.per_device_batch_size = 1
    train_stage(recipe, MACHINE)
    assert all(math.isfinite(loss) for loss in losses(tmp_path).values())
    trained = {row["group"].split("/")[0] for row in json.loads((tmp_path / "trainable.json").read_text())
               if row["trainable"]}  # fmt: skip
    modules = recipe.modules
    wanted = {name for name in ("vision", "projector", "text") if not getattr(modules, name).freeze}
    assert trained == (wanted - {"text"} | {"text_adapter"} if recipe.adapter.rank else wanted)
    result = "adapter_config.json" if recipe.adapter.rank else "config.json"
    assert (tmp_path / result).is_file()
