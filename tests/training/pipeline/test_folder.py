"""Reading a recipe folder: order of the stages, what pipeline.yaml may say, and mistakes in it."""

import pytest

from training.pipeline.folder import build_flags, read_folder
from training.recipe import RecipeError


def folder(path, pipeline: str | None = None, stages=("b.yaml", "a.yaml", "c.yaml")):
    path.mkdir(exist_ok=True)
    for name in stages:
        (path / name).write_text("train: {max_steps: 1}\n")
    if pipeline is not None:
        (path / "pipeline.yaml").write_text(pipeline)
    return path


def names(pipeline) -> list[str]:
    return [stage.name for stage in pipeline.stages]


def test_without_a_pipeline_file_the_stages_go_by_name(tmp_path):
    read = read_folder(folder(tmp_path / "r"))
    assert names(read) == ["a", "b", "c"] and read.guard is None and not read.build
    assert [read.index(name) for name in ("b", "b.yaml", "2")] == [1, 1, 1]
    with pytest.raises(RecipeError, match="no stage 'd'; it has a, b, c"):
        read.index("d")


def test_the_file_names_order_build_and_guard(tmp_path):
    read = read_folder(folder(
        tmp_path / "r",
        "build: {vision: C-RADIOv4-H, llm: tiny, geometry: {mode: fixed, size: [512, 512]}, random: true}\n"
        "stages: [c.yaml, a.yaml]\n"
        "launch: {gpus_per_node: 8}\n"
        "guard: {data: [text], tolerances: {text: 0.5}, compare: previous, action: flag}\n",
    ))  # fmt: skip
    assert names(read) == ["c", "a"] and read.launch == {"gpus_per_node": 8}
    assert read.guard.tolerance_of("text") == 0.5 and read.guard.tolerance_of("other") == 0.02
    assert build_flags(read.build, "runs/x") == [
        "--vision", "C-RADIOv4-H", "--llm", "tiny", "--geometry", "mode=fixed", "size=512,512", "--random",
        "--out", "runs/x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage: [a.yaml]", "unknown key stage .*did you mean stages"),
        ("stages: [a.yaml, z.yaml]", "z.yaml, named in .* does not exist"),
        ("stages: [a.yaml, a.yaml]", "names a twice"),
        ("stages: {}", "has no stages"),
        ("guard: {tolerance: 0.1}", "names no tasks"),
        ("guard: {data: text}", "guard.data must be a list"),
        ("guard: {data: [t], tolerence: 0.1}", "unknown key guard.tolerence .*did you mean tolerance"),
        ("guard: {data: [t], tolerance: 2}", "between 0 and 1"),
        ("guard: {data: [t], action: halt}", "'halt' is not one of stop, flag"),
        ("guard: {data: [t], limit: 0}", "guard.limit = 0"),
        ("build: tiny", "build in .* must be a mapping"),
        ("- a.yaml", "must hold `key: value` lines"),
        ("guard: {data: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, words):
    with pytest.raises(RecipeError, match=words):
        read_folder(folder(tmp_path / "r", text))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(RecipeError, match="is no recipe folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(RecipeError, match="has no stages"):
        read_folder(folder(tmp_path / "empty", stages=()))
