"""Replay: earlier data as a share of the samples, beside sources of any kind; mixtures in a file of their own."""

import json
from collections import Counter

import pytest
import yaml

from tests.helpers.data_folders import record, write_records
from tests.helpers.stage_runs import mixed_corpus, save_small_vlm
from training.data.mixture import Mixture
from training.data.sources import DataError
from training.data.stream_feed import with_replay
from training.environment import Machine
from training.pipeline.marks import _chosen
from training.recipe import Recipe, RecipeError
from training.recipe.loading import help_text, load_recipe, to_dict
from training.stage import train_stage

MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)


def folders(tmp_path, **sizes: int) -> list[str]:
    for name, size in sizes.items():
        write_records(tmp_path / name, [record(f"{name}{i}") for i in range(size)])
    return list(sizes)


def counts(mixture: Mixture, epoch: int = 0) -> list[int]:
    found = Counter(mixture.locate(int(index))[0] for index in mixture.order(epoch))
    return [found[number] for number in range(len(mixture.sources))]


MAIN = {
    "sizes": [{}, {}],
    "weights": [{"weight": 3}, {"weight": 1}],
    "repeats": [{"repeats": 2}, {"repeats": 0.5}],
    "limits": [{"limit": 10}, {}],
    "caps": [{"cap": 7}, {"cap": 50}],
}


@pytest.mark.parametrize("how", MAIN)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_replay_makes_its_share_and_leaves_the_rest_of_an_epoch_as_it_is(tmp_path, how, share):
    folders(tmp_path, a=30, b=20, old=6, older=12)
    main = [{"path": "a", **MAIN[how][0]}, {"path": "b", **MAIN[how][1]}]
    again = [{"path": "old", "weight": 3}, {"path": "older", "weight": 1}]
    plain = Mixture(main, root=tmp_path)
    mixed = Mixture(main, root=tmp_path, replay=again, replay_share=share)
    for epoch in (0, 1):
        *first, old, older = counts(mixed, epoch)
        assert first == counts(plain, epoch)
        assert (old + older) / (sum(first) + old + older) == pytest.approx(share, abs=0.5 / sum(first))
        assert old == pytest.approx(3 * older, abs=3)
    used = Counter(int(index) for epoch in range(8) for index in mixed.order(epoch))
    old = [used[index] for index in range(len(mixed)) if mixed.locate(index)[0] == 2]
    assert max(old) - min(old) <= 1, "every replayed sample has its turn"


def test_replayed_sources_without_weights_count_by_size_and_repeats(tmp_path):
    folders(tmp_path, a=40, old=6, older=12)
    assert counts(Mixture(["a"], root=tmp_path, replay=["old", "older"], replay_share=0.5)) == [40, 13, 27]
    again = [{"path": "old", "repeats": 2}, {"path": "older"}]
    assert counts(Mixture(["a"], root=tmp_path, replay=again, replay_share=0.5)) == [40, 20, 20]
    with pytest.raises(DataError, match="older has no 'weight'"):
        Mixture(["a"], root=tmp_path, replay=[{"path": "old", "weight": 1}, {"path": "older"}], replay_share=0.5)


def test_shares_of_streams():
    main = [{"path": "a", "weight": 3}, {"path": "b", "weight": 1}]
    found = with_replay(main, [{"path": "old"}], 0.2)
    assert [(one["path"], round(one["weight"], 9)) for one in found] == [("a", 0.6), ("b", 0.2), ("old", 0.2)]


def test_the_recipe_says_what_is_replayed():
    recipe = load_recipe(None, ["data.sources=[{path: a}]", "data.replay.sources=[{path: old}]"])
    assert recipe.data.replay.part == 0.5 and [one.path for one in recipe.data.all_sources()] == ["a", "old"]
    plain = load_recipe(None, ["sources=[{path: a}]", "data.replay.sources=[{path: old}]", "data.replay.share=0"])
    assert plain.data.replay.part == 0 and [one.path for one in plain.data.all_sources()] == ["a"]
    assert Recipe().data.replay.part == 0 and load_recipe(None, ["data.replay.share=0"]).data.replay.part == 0
    assert "data.replay.share" in help_text("x") and help_text("x").count("Share of this source") == 1
    assert _chosen(to_dict(recipe))["data.replay.sources"] == [{"path": "old"}]


@pytest.mark.parametrize("words, message", [
    (["data.replay.share=0.5"], "data.replay.share = 0.5 and data.replay.sources is empty"),
    (["data.replay={sources: [{path: old}], share: 1}"], "data.replay.share = 1.0 must be 0 or more and below 1"),
    (["data.replay={sources: [{path: old}], share: -0.1}"], "data.replay.share = -0.1 must be"),
    (["data.replay.sources=[{path: old, cap: 3}]"], "cap of old in data.replay.sources"),
    (["data.replay.part=0.5"], "unknown key 'data.replay.part'"),
])  # fmt: skip
def test_refusals_name_the_option(words, message):
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")):
        load_recipe(None, words)


def test_a_mixture_in_a_file_of_its_own(tmp_path):
    folders(tmp_path, **{"x/train": 5, "x/more": 4})
    entries = [
        {"path": "train", "weight": 2},
        {"path": "hf://o/n", "split": "train"},
        {"path": str(tmp_path / "x/more")},
    ]
    file = tmp_path / "x/mixture.yaml"
    file.write_text(yaml.safe_dump(entries))
    recipe = load_recipe(None, [f"data.sources={file}", "data.root=elsewhere"])
    paths = [one.path for one in recipe.data.sources]
    assert paths == [str(tmp_path / "x/train"), "hf://o/n", str(tmp_path / "x/more")]
    assert recipe.data.sources[0].weight == 2
    again = load_recipe(None, ["sources=[{path: a}]", f"data.replay.sources={file}", f"data.eval_sources={file}"])
    assert [one.path for one in again.data.replay.sources] == [one.path for one in again.data.eval_sources] == paths
    written = tmp_path / "recipe.json"
    written.write_text(json.dumps(to_dict(recipe)))
    assert load_recipe(written) == recipe


@pytest.mark.parametrize("key", ["sources", "replay.sources", "eval_sources"])
@pytest.mark.parametrize("root", [None, "relative", "absolute", "home"])
def test_a_mixture_file_is_found_from_the_root(tmp_path, monkeypatch, key, root):
    """Relative paths start from data.root, as those of sources do, or else from the current folder."""
    (tmp_path / "data/x").mkdir(parents=True)
    (tmp_path / "data/x/mixture.yaml").write_text("- {path: train}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    roots = {"relative": "data", "absolute": str(tmp_path / "data"), "home": "~/data"}
    words = [] if root is None else [f"data.root={roots[root]}"]
    near = "data/x/mixture.yaml" if root is None else "x/mixture.yaml"
    for path in (near, str(tmp_path / "data/x/mixture.yaml"), "~/data/x/mixture.yaml"):
        data = load_recipe(None, [*words, f"data.{key}={path}"]).data
        (source,) = data.replay.sources if key == "replay.sources" else getattr(data, key)
        assert source.path == str(tmp_path / "data/x/train"), path
    with pytest.raises(RecipeError, match=f"data.{key} = .*none.yaml: there is no such file"):
        load_recipe(None, [*words, f"data.{key}=none.yaml"])


@pytest.mark.parametrize("text, message", [
    (None, "data.sources = .*mixture.yaml: there is no such file"),
    ("a: 1", "data.sources = .*mixture.yaml must hold a list"),
    ("[]", "must hold a list"), ("- text", "must hold a list"), ("[", "mixture.yaml is not valid YAML"),
    ("- {path: a, wieght: 1}", r"unknown key 'data.sources\[0\].wieght' in .*mixture.yaml"),
    ("- {path: a, weight: -1}", "weight of .*a = -1.0 must be above 0"),
])  # fmt: skip
def test_a_bad_mixture_file_is_named(tmp_path, text, message):
    file = tmp_path / "mixture.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(None, [f"data.sources={file}"])


def test_a_stage_reads_and_reports_what_is_replayed(tmp_path):
    save_small_vlm(tmp_path / "stage0")
    mixed_corpus(tmp_path / "new", n=8)
    mixed_corpus(tmp_path / "old", n=8)

    def run(out: str, *words: str) -> set[str]:
        train_stage(load_recipe(None, [
            f"model={tmp_path / 'stage0'}", f"output_dir={tmp_path / out}", f"data.root={tmp_path}", "max_steps=3",
            "data.sources=[{path: new, name: new}]", "data.replay.sources=[{path: old, name: old}]", "log_steps=1",
            "per_device_batch_size=8", "watch.report_to=[]", "data.max_length=256", *words,
        ]), MACHINE)  # fmt: skip
        history = json.loads((tmp_path / out / "trainer_state.json").read_text())["log_history"]
        return {key for entry in history for key in entry if key.startswith("source_loss/")}

    assert run("replay") == {"source_loss/new", "source_loss/old"}
    assert run("plain", "data.replay.share=0") == {"source_loss/new"}
