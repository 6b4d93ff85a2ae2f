"""What a pipeline needs of the disk is asked for before it starts, and nothing that may come yet or lies on the hub."""

from pathlib import Path

import pytest

from tests.helpers.data_folders import record, write_records
from training.pipeline.folder import StageFile
from training.pipeline.ready import check_stage
from training.pipeline.stages import PlannedStage
from training.recipe import Data, Recipe, RecipeError, Source


def stage(*paths, **data) -> PlannedStage:
    sources = [Source(path=str(path)) for path in paths]
    return PlannedStage(
        StageFile("s1", Path("s1.yaml")), Recipe(model="m", output_dir="o", data=Data(sources=sources, **data)), []
    )


def test_what_need_not_be_on_the_disk(tmp_path):
    write_records(tmp_path / "here", [record("t")])
    check_stage(stage("here", "hf://org/name", "shards-{000..127}.tar", root=str(tmp_path)), 2, [])
    check_stage(stage(tmp_path / "out/rows.jsonl"), 2, made=[tmp_path / "out"])


def test_what_is_missing_is_named_with_its_file(tmp_path):
    write_records(tmp_path / "here", [record("t")])
    with pytest.raises(RecipeError, match=r"s1.yaml: data.sources: data '/none' does not exist.*data.root"):
        check_stage(stage("/none"), 2, [])
    with pytest.raises(RecipeError, match=r"data.eval_sources: data '.*gone' does not exist"):
        check_stage(stage("here", root=str(tmp_path), eval_sources=[Source(path="gone")]), 2, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="none of the known data formats"):
        check_stage(stage(tmp_path / "empty"), 2, [])
