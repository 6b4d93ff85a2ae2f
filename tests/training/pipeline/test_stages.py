"""What a pipeline finds of its stages: which model each starts from, what is finished, begun, changed or stale."""

import json
import os

import pytest

from training.pipeline import marks
from training.pipeline.folder import read_folder
from training.pipeline.stages import look, plan_stages
from training.recipe import Recipe, RecipeError, Source
from training.recipe.loading import to_dict


@pytest.fixture
def recipes(tmp_path):
    """A folder of two stages that fit together."""
    for index, (model, out) in enumerate((("m0", "m1"), ("m1", "m2")), 1):
        (tmp_path / f"s{index}.yaml").write_text(
            f"model: {tmp_path / model}\noutput_dir: {tmp_path / out}\n"
            f"data: {{sources: [{{path: {tmp_path / 'data'}}}]}}\ntrain: {{max_steps: 10}}\n"
        )
    return tmp_path


def planned(folder, *words, **options):
    stages = plan_stages(read_folder(folder), list(words), **options)
    look(stages)
    return stages


def states(folder, *words) -> list[str]:
    return [stage.state for stage in planned(folder, *words)]


def train(stage, before=None, done=True) -> None:
    """What training leaves: marks and the recipe."""
    stage.output.mkdir(parents=True, exist_ok=True)
    marks.begin(stage.output, stage.hash, before.id if before else None)
    (stage.output / "recipe.json").write_text(json.dumps(to_dict(stage.recipe)))
    (stage.output / "checkpoint-5").mkdir(exist_ok=True)
    if done:
        marks.finish(stage.output)


def test_words_reach_all_stages_or_one(recipes):
    one, two = planned(recipes, "learning_rate=3e-4", "s2:train.max_steps=7")
    assert (one.recipe.train.learning_rate, two.recipe.train.learning_rate) == (3e-4, 3e-4)
    assert (one.recipe.train.max_steps, two.recipe.train.max_steps) == (10, 7)
    assert two.words == ["learning_rate=3e-4", "train.max_steps=7"]
    with pytest.raises(RecipeError, match="no stage 's3'; there are s1, s2"):
        planned(recipes, "s3:train.max_steps=7")
    for word, instead in (("model=x", "--model"), ("output_dir=x", "--out"), ("s1:resume=true", "by itself")):
        with pytest.raises(RecipeError, match=instead):
            planned(recipes, word)


def test_each_stage_starts_from_the_one_before(recipes):
    one, two = planned(recipes, out=str(recipes / "run"), model="base")
    assert (one.recipe.model, one.recipe.output_dir) == ("base", str(recipes / "run/s1"))
    assert (two.recipe.model, two.recipe.output_dir) == (str(recipes / "run/s1"), str(recipes / "run/s2"))
    text = (recipes / "s2.yaml").read_text()
    (recipes / "s2.yaml").write_text(text.replace("/m1", "/elsewhere"))
    with pytest.raises(RecipeError, match=r"s2.yaml starts from .*elsewhere, but .*s1.yaml before it writes .*m1"):
        planned(recipes)
    (recipes / "s2.yaml").write_text(text.replace("/m2", "/m1"))
    with pytest.raises(RecipeError, match="two stages .* write to .* or give the pipeline --out FOLDER"):
        planned(recipes)


def test_the_built_model_is_where_a_run_starts(recipes):
    (recipes / "pipeline.yaml").write_text("build: {preset: tiny}\n")
    assert planned(recipes, out=str(recipes / "run"))[0].recipe.model == str(recipes / "run/untrained")
    assert planned(recipes)[0].recipe.model == str(recipes / "m0")  # as its file says


def test_finished_begun_and_new(recipes):
    assert states(recipes) == ["new", "new"]
    one, two = planned(recipes)
    train(one)
    assert states(recipes) == ["complete", "new"]
    train(two, marks.read_mark(one.output), done=False)
    assert states(recipes) == ["complete", "begun"]
    marks.finish(two.output)
    assert states(recipes) == ["complete", "complete"]
    train(one)  # once more
    assert states(recipes) == ["complete", "stale"]


def test_a_changed_recipe_is_seen_and_said(recipes):
    one, _ = planned(recipes)
    train(one)
    changed = planned(recipes, "s1:train.max_steps=20")[0]
    assert changed.state == "changed" and "train.max_steps 10 -> 20" in changed.why
    harmless = ("log_steps=1", "save_steps=5", "watch.predictions_every=5", "watch.report_to=[]")
    assert states(recipes, *harmless) == ["complete", "new"]


def test_an_option_at_its_default_decides_nothing():
    tree = to_dict(Recipe(model="m", output_dir="o"))
    older = json.loads(json.dumps(tree))
    del older["train"]["z_loss"]  # a recipe.json from before this option
    assert marks.recipe_hash(older) == marks.recipe_hash(tree)
    older["train"]["z_loss"] = 0.1
    assert marks.recipe_hash(older) != marks.recipe_hash(tree)
    tree["data"]["sources"] = [vars(Source(path="a"))]
    older = json.loads(json.dumps(tree))
    older["data"]["sources"] = [{"path": "a"}]
    assert marks.recipe_hash(older) == marks.recipe_hash(tree)


def test_a_stage_run_by_hand_counts_when_it_is_known_to_be_finished(recipes):
    one, _ = planned(recipes)
    one.output.mkdir()
    (one.output / "recipe.json").write_text(json.dumps(to_dict(one.recipe)))
    assert states(recipes)[0] == "new"  # nothing to lose
    (one.output / "config.json").write_text("{}")
    assert states(recipes)[0] == "foreign"  # an earlier model, or one that was killed while it was saved
    (one.output / "throughput.json").write_text("{}")
    assert states(recipes)[0] == "complete"
    os.utime(one.output / "throughput.json", (1, 1))  # of an earlier run: the recipe is newer
    assert states(recipes)[0] == "foreign"
