"""Recipes: every shipped file parses, overrides reach their field, and every mistake gets a message that helps."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from training.deepspeed_file import deepspeed_config
from training.loading import load_model
from training.pipeline.folder import read_folder
from training.recipe import Recipe, RecipeError, Source
from training.recipe.loading import _sections, field_docs, help_text, known_keys, load_recipe, to_dict
from training.run import _parse, run_stage

FOLDER = Path(__file__).resolve().parents[2] / "training/recipes"
SHIPPED = [stage.path for folder in sorted(FOLDER.iterdir()) for stage in read_folder(folder).stages]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_recipes(path: Path):
    recipe = load_recipe(path)
    if recipe.train.context_parallel > 1:
        with pytest.raises(RecipeError, match="context_parallel"):
            recipe.check_runnable()
    else:
        recipe.check_runnable()
    if recipe.train.zero != "none":
        deepspeed_config(recipe)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("deepspeed --num_accelerators" in line and str(path.relative_to(FOLDER.parents[1])) in line
               for line in header), "the header holds the command"  # fmt: skip
    if path.parent.name != "tiny":
        for word in ("Source of the values", "Not from a source", "Memory"):
            assert any(word in line for line in header), f"the header of a real recipe says: {word}"
        for world_size in (1, 8):
            assert recipe.accumulation(world_size) >= 1


@pytest.mark.parametrize(
    ("body", "words", "message"),
    [
        (b"train: 5", ["max_steps=3"], "train in the recipe must be a mapping, not 5"),
        (b"train: {max_steps: .inf}", [], "train.max_steps .* must be int, not inf"),
        (b"\xff\xfe", [], "is not valid YAML"),
    ],
)
def test_recipes_that_cannot_be_read(tmp_path, body, words, message):
    (tmp_path / "r.yaml").write_bytes(body)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "r.yaml", words)


def test_each_folder_has_its_four_stages():
    assert {path.stem for path in (FOLDER / "tiny").glob("stage*.yaml")} == {f"stage{n}" for n in (1, 2, 3, 4)}


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_entry_scripts_are_short_and_name_their_recipe(stage: int):
    text = (FOLDER.parent / f"stage{stage}.py").read_text()
    assert text.count("\n") <= 40
    assert f"recipes/tiny/stage{stage}.yaml" in text


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("learning_rate=3e-4", 3e-4),
        ("train.learning_rate=0.0003", 3e-4),
        ("--learning_rate=3e-4", 3e-4),
        ("max_steps=1e3", 1000),
        ("max_seconds=30", 30.0),
        ("optimizer=muon", "muon"),
        ("modules.vision.freeze=true", True),
        ("modules.text.lr=1e-5", 1e-5),
        ("resume=runs/x/checkpoint-4", "runs/x/checkpoint-4"),
        ("resume=true", True),
        ("data.sources=[{path: a, weight: 2}]", [Source("a", 2.0)]),
        ("data.eval_sources=[]", []),
        ("zero=none", "none"),
        ("zero=zero3", "zero3"),
    ],
)
def test_overrides(word: str, value):
    recipe = load_recipe(FOLDER / "tiny/stage2.yaml", [word])
    key = word.partition("=")[0].removeprefix("--")
    path = next(name for name in (key, f"train.{key}", f"data.{key}") if name in known_keys())
    found = recipe
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("lerning_rate=1", ["unknown key", "did you mean train.learning_rate", "train.max_steps", "data.sources"]),
        ("data.sauces=1", ["did you mean data.sources"]),
        ("data.sources=[{pth: a}]", ["data.sources[0].pth", "did you mean data.sources[0].path"]),
        ("modules.vison.lr=1", ["did you mean modules.vision.lr"]),
        ("freeze=true", ["ambiguous", "modules.vision.freeze"]),
        ("max_steps=many", ["train.max_steps", "int", "many"]),
        ("max_steps=1.5", ["train.max_steps", "int"]),
        ("max_steps=0", ["train.max_steps", "above 0"]),
        ("freeze", ["key=value"]),
        ("modules.text=3", ["modules.text", "mapping"]),
        ("data.sources=a", ["data.sources", "list"]),
        ("optimizer=sgd", ["sgd", "adamw", "muon"]),
        ("zero=zero9", ["zero9", "zero2"]),
        ("schedule=[", ["YAML"]),
        ("data.sources=[{path: a, weight: 1, repeats: 2}]", ["weight", "repeats"]),
        ("train={cache: 1}", ["train.cache"]),
    ],
)
def test_mistakes_are_explained(word: str, parts: list[str]):
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, [word])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["optimizer=muon", "zero=zero3_offload"], ["train.zero", "optimizer", "zero2"]),
        ([f"modules.{m}.freeze=true" for m in ("vision", "projector", "text")], ["modules.text.freeze", "false"]),
        (["data.cache=true", "data.num_workers=2"], ["data.cache", "data.num_workers"]),
        (["global_batch_size=8", "gradient_accumulation_steps=2"], ["global_batch_size", "gradient_accumulation"]),
        (["save_total_limit=1"], ["save_total_limit", "2 or more"]),
    ],
)
def test_illegal_combinations_name_both_fields(words: list[str], parts: list[str]):
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, words)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("modules.text.lr=-2e-3", "lr of a module = -0.002 must be 0 or more"),
        ("modules.vision.weight_decay=-0.5", "weight_decay of a module"),
        ("max_grad_norm=-1", "train.max_grad_norm = -1.0 must be 0 or more"),
        ("learning_rate=.nan", "train.learning_rate = nan must be a finite number, 0 or more"),
        ("muon_learning_rate=.inf", "a finite number"),
        ("betas=[0.9, 1.5]", r"train.betas = \[0.9, 1.5\] must be 0 or more and below 1"),
        ("eps=0", "train.eps = 0.0 must be above 0"),
        ("muon_momentum=2", "train.muon_momentum = 2.0 must be 0 or more and below 1"),
        ("save_steps=-5", "train.save_steps = -5 must be 0 or more"),
        ("threads_per_rank=0", "train.threads_per_rank = 0 must be above 0"),
        ("global_batch_size=0", "train.global_batch_size = 0 must be above 0"),
        ("decay_ratio=1.5", "train.decay_ratio = 1.5 must be above 0 and at most 1"),
        ("data.eval_limit=-3", "data.eval_limit = -3 must be above 0"),
        ("data.sources=[{path: 'a-{0..3}.tar', weight: .nan}]", r"weight of a-\{0..3\}.tar = nan must be a finite"),
        ("watch.peak_tflops=0", "watch.peak_tflops = 0.0 must be above 0"),
        ("seed=-1", "seed = -1 must be 0 or more"),
        ("resume='false'", "without quotes"),
    ],
)
def test_numbers_lie_where_they_may(word: str, said: str):
    with pytest.raises(RecipeError, match=said):
        load_recipe(None, [word])


@pytest.mark.parametrize("word", ["max_grad_norm=0", "learning_rate=0", "betas=[0, 0.9]", "decay_ratio=1", "resume=no"])
def test_the_ends_of_the_ranges(word: str):
    load_recipe(None, [word])


def test_options_of_new_embeddings_that_would_do_nothing_are_refused():
    for option in ("layer_decay: 0.9", "norms_only: true", "optimizer: adamw", "compile: true", "muon_lr: 0.1",
                   "weight_decay: 0.1", "gradient_checkpointing: true"):  # fmt: skip
        with pytest.raises(RecipeError, match=f"modules.new_embeddings.{option.split(':')[0]} .*leave it out"):
            load_recipe(None, ["modules.text.freeze=true", f"modules.new_embeddings={{{option}}}"])
    rows = "modules.new_embeddings={lr: 1e-3}"
    with pytest.raises(RecipeError, match="new_embeddings.lr = 0.001 and modules.text.freeze = false .*text.lr"):
        load_recipe(None, [rows])
    for closed in ("modules.text.freeze=true", "modules.text.norms_only=true", "adapter.rank=4"):
        load_recipe(None, [rows, closed])
    load_recipe(None, ["modules.new_embeddings.freeze=false"])  # says what is so anyway


def test_global_batch_size_sets_the_accumulation():
    recipe = load_recipe(None, ["global_batch_size=64", "per_device_batch_size=4"])
    assert recipe.accumulation(8) == 2 and recipe.accumulation(16) == 1
    with pytest.raises(RecipeError, match="not a multiple"):
        recipe.accumulation(3)


def test_missing_fields_and_files(tmp_path):
    with pytest.raises(RecipeError, match="output_dir"):
        load_recipe(None, ["model=x"]).check_runnable()
    with pytest.raises(RecipeError, match="output_dir = a/../x is the folder of model"):
        load_recipe(None, ["model=x", "output_dir=a/../x"]).check_runnable()
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(tmp_path / "no.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: [1,")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(broken)


def test_round_trip_through_a_dict(tmp_path):
    import yaml

    recipe = load_recipe(FOLDER / "tiny/stage1.yaml")
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(to_dict(recipe)))
    assert load_recipe(copy) == recipe


def test_every_field_is_documented_and_in_the_help():
    text = help_text("training/stage2.py")
    assert "Without --config" in text and "written over" in text
    for prefix, cls in _sections(Recipe):
        docs = field_docs(cls)
        for entry in dataclasses.fields(cls):
            assert docs.get(entry.name), f"{cls.__name__}.{entry.name} has no docstring"
            assert f"{prefix}.{entry.name}".lstrip(".") in text or dataclasses.is_dataclass(entry.default_factory())


def test_command_line(capsys):
    assert _parse(["--local_rank=1", "--config", "a.yaml", "x=1"], None) == ("a.yaml", 1, ["x=1"], False)
    assert _parse(["--config=a.yaml", "--local_rank", "0"], "b.yaml") == ("a.yaml", 0, [], False)
    assert _parse(["x=1"], "b.yaml") == ("b.yaml", None, ["x=1"], False)
    assert run_stage(["--help"]) == 0
    assert "train.learning_rate" in capsys.readouterr().out
    assert run_stage(["nonsense=1"]) == 2
    assert "unknown key 'nonsense'" in capsys.readouterr().err


def test_a_stage_script_without_arguments_explains_itself_and_trains_nothing(tmp_path, monkeypatch, capsys):
    from training.run import run_stage

    monkeypatch.chdir(tmp_path)
    default = str(Path(__file__).parents[2] / "training/recipes/tiny/stage2.yaml")
    assert run_stage(["--local_rank=0"], default_config=default) == 2
    assert "--config" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_compiling_and_zero3_are_refused_before_anything_is_loaded():
    with pytest.raises(RecipeError, match="modules.text.compile = true and train.zero = zero3_offload"):
        load_recipe(None, ["modules.text.compile=true", "zero=zero3_offload"])
    assert load_recipe(None, ["modules.text.compile=true", "zero=zero2"]).modules.text.compile


@pytest.mark.parametrize("model", ["/nope", "./nope/x", "nope", "../a/b", "a/b/c", "-/x"])
def test_a_model_that_is_neither_folder_nor_hub_name_is_said_plainly(model):
    recipe = load_recipe(None, [f"model={model}"])
    with pytest.raises(RecipeError, match="is not a folder"):
        load_model(recipe, None)


def test_a_hub_model_that_cannot_be_had_is_said_in_one_line():
    recipe = load_recipe(None, ["model=runs/nope", "train.zero=none"])
    args = SimpleNamespace(bf16=False, deepspeed=None)
    with pytest.raises(RecipeError, match="runs/nope cannot be loaded: ") as error:
        load_model(recipe, args)
    assert "\n" not in str(error.value)
