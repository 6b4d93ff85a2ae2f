"""Stages that pack or stream: they say how full their rows were, and go on exactly with another number of workers."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.data_folders import record
from tests.helpers.stage_runs import losses, mixed_corpus, save_small_vlm, small_vlm
from training.data_loading import check_packing
from training.environment import Machine
from training.recipe import RecipeError
from training.recipe.loading import load_recipe
from training.stage import train_stage

MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
PACKED = ("packing=true", "packing_buffer=16", "pack_length=512", "max_length=400", "per_device_batch_size=2")
PADDED = ("per_device_batch_size=4",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("stage")
    save_small_vlm(made / "stage0")
    mixed_corpus(made / "data", 24)
    rows = [
        record(f"h{i}", question=f"row {i}?", answer="a " * i)
        for i in range(1, 50)
    ]
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows).save_to_disk(str(made / "rows"))
    return made


def sources(folder: Path, kind: str) -> str:
    if kind == "map":
        return f"data.sources=[{{path: {folder / 'data'}}}]"
    return (
        f"data.sources=[{{path: {folder / 'rows'}, streaming: true, weight: 0.6}}, "
        f"{{path: {folder / 'data'}, weight: 0.4}}]"
    )


@pytest.mark.parametrize(
    "kind, layout", [("map", PACKED), ("stream", PACKED), ("stream", PADDED)],
    ids=["packed", "packed stream", "padded stream"],
)  # fmt: skip
def test_a_resumed_stage_goes_on_exactly_with_another_number_of_workers(folder, tmp_path, kind, layout):
    def run(out: str, *words: str) -> tuple[dict, dict[int, float]]:
        common = (f"model={folder / 'stage0'}", sources(folder, kind), "stream_block=16", "max_steps=10", "log_steps=1",
                  "learning_rate=1e-3", "save_steps=5", "watch.report_to=[]")  # fmt: skip
        recipe = load_recipe(None, [*common, *layout, f"output_dir={tmp_path / out}", *words])
        return train_stage(recipe, MACHINE), losses(tmp_path / out)

    record, whole = run("whole")
    _, resumed = run("resumed", f"resume={tmp_path / 'whole/checkpoint-5'}", "num_workers=1")
    after = {step: loss for step, loss in resumed.items() if step > 5}
    assert after == pytest.approx({step: whole[step] for step in range(6, 11)}, rel=1e-6)
    written = json.loads((tmp_path / "whole/throughput.json").read_text())
    assert written.get("packing") == record.get("packing")
    if layout is PACKED:
        assert record["packing"]["packs"] == 20 and record["packing"]["fill"] > 0.9


def test_packing_is_refused_where_samples_would_see_each_other():
    model, _ = small_vlm()
    with pytest.raises(RecipeError, match="data.packing = true.*not prepared.*data.packing=false"):
        check_packing(model)
    config = SimpleNamespace(model_type="odd")
    with pytest.raises(RecipeError, match=r"\(odd\) cannot keep .*: it leaks; set data.packing=false"):
        check_packing(SimpleNamespace(language_model=SimpleNamespace(why_not_packed=lambda: "it leaks", config=config)))
    check_packing(SimpleNamespace(language_model=SimpleNamespace(why_not_packed=lambda: None, config=config)))
