"""`radio-vlm check-data` over recipes: stage files, pipelines, streamed sources, overlap, clean copies, exit codes."""

import json

import pytest
import yaml

from tests.helpers.data_folders import good_folder, record, write_records
from tests.training.data.check.receipts import receipts
from vlm.cli.main import main


def stage(path, sources, eval_sources=(), model="nowhere/model", **data):
    tree = {"model": model, "data": {"sources": sources, "eval_sources": list(eval_sources), **data}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree))
    return path


def test_overlap_in_a_recipe_and_its_control(tmp_path, check_data):
    receipts(tmp_path / "train", range(6))
    receipts(tmp_path / "seen", range(5, 9), "h", "Another?", quality=60)
    receipts(tmp_path / "unseen", range(6, 9), "h", "Another?", quality=60)
    root = f"data.root={tmp_path}"
    recipe = stage(tmp_path / "a.yaml", [{"path": "train", "weight": 2}], [{"path": "seen"}])
    code, text, report = check_data(recipe, root)
    assert code == 1 and report["reasons"] == {"in_training": 1}
    assert report["duplicates"]["eval_samples_seen_in_training"] == 1
    assert "1 held-out samples share a picture" in text and "not there yet" in text
    control = stage(tmp_path / "b.yaml", [{"path": "train"}], [{"path": "unseen"}])
    assert check_data(control, root)[0] == 0
    assert check_data(recipe, root, "--no-duplicates")[0] == 0  # other files with other words
    assert check_data(recipe, root, "--distance", 0)[2]["duplicates"]["distance"] == 0
    assert check_data(tmp_path / "train", "--against", tmp_path / "seen")[0] == 1


def test_a_pipeline_folder_is_read_in_its_order(tmp_path, check_data):
    good_folder(tmp_path / "one", 4)
    good_folder(tmp_path / "two", 5)
    folder = tmp_path / "recipe"
    stage(folder / "z.yaml", [{"path": "one"}], [{"path": "two", "limit": 2}], root=str(tmp_path), max_length=100)
    stage(folder / "a.yaml", [{"path": "one"}, {"path": "two"}], root=str(tmp_path), max_length=100)
    (folder / "notes.yaml").write_text("what: [this, is]\n")
    (folder / "pipeline.yaml").write_text("stages: [z.yaml, a.yaml]\n")
    for path in (folder, folder / "pipeline.yaml"):
        _, _, report = check_data(path, "--no-duplicates", "--model", "m")
        told = [(one["stage"], one["role"], one["samples"]) for one in report["sources"]]
        assert told == [("z", "train", 4), ("z", "eval", 2), ("a", "train", 5)]  # what two stages read, once
        assert report["sources"][0]["max_length"] == 100
    assert report["duplicates"]["eval_samples_seen_in_training"] == 2  # of stage a
    (folder / "pipeline.yaml").unlink()
    assert [one["stage"] for one in check_data(folder)[2]["sources"]] == ["a", "a", "z"]
    (folder / "pipeline.yaml").write_text("stages: [nowhere.yaml]\n")
    assert main(["check-data", str(folder)]) == 2


@pytest.mark.parametrize("name", ["tiny", "nemotron_nano_12b_v2_c_radio_v2_vlm_h"])
def test_recipes_whose_data_are_not_there(check_data, tmp_path, name):
    code, text, report = check_data(f"training/recipes/{name}", f"data.root={tmp_path}")
    assert code == 1 and list(report["reasons"]) == ["unreadable_source"]
    assert f"{tmp_path}" in text and "does not exist" in text and "no source could be read" in text
    assert "data.root=FOLDER" in text and "skip them and go on" not in text
    assert {one["stage"] for one in report["sources"]} >= ({"stage1", "stage4"} if name == "tiny" else {"warmup"})


def test_options_of_a_recipe(tmp_path, check_data, capsys):
    """A list is an option though it holds braces; options may stand behind flags; without a recipe they are errors."""
    data = good_folder(tmp_path / "d", 3)
    recipe = stage(tmp_path / "a.yaml", [{"path": "nowhere"}])
    code, _, report = check_data(recipe, "--no-duplicates", f"data.sources=[{{path: {data}}}]")
    assert code == 0 and [one["path"] for one in report["sources"]] == [str(data)]
    for arguments, words in (
        ([data, "train.max_steps=3"], "is an option of a recipe"),
        ([recipe, "data.nothing=3"], "unknown key"),
        ([data, "--distance", "64"], "not in 0 ... 63"),
    ):
        capsys.readouterr()
        assert main(["check-data", *map(str, arguments)]) == 2 and words in capsys.readouterr().err


def test_streamed_sources(tmp_path, check_data, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="optional package absent")
    rows = {"question": [f"Q{i}" for i in range(30)], "answers": [[""] if i == 7 else [f"A{i}"] for i in range(30)]}
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "rows.parquet"))
    recipe = stage(tmp_path / "a.yaml", [{"path": "rows.parquet", "streaming": True}], root=str(tmp_path))
    code, text, report = check_data(recipe)
    assert code == 1 and report["reasons"] == {"no_labels": 1} and "streamed sources" in text
    (problem,) = report["problems"]
    assert "rows.parquet" in problem["where"] and "7" in problem["where"]
    assert report["sources"][0]["samples"] == 30
    monkeypatch.setattr("training.data.check.run.STREAMED", 5)
    code, _, report = check_data(recipe)
    assert code == 0 and report["sources"][0]["samples"] == 5
    assert check_data(recipe, "--limit", 9)[2]["sources"][0]["samples"] == 9


def test_exit_codes(tmp_path, check_data):
    folder = good_folder(tmp_path / "d", 19)
    lines = (folder / "records.jsonl").read_text().splitlines()
    write_records(folder, [*lines, "nonsense"])  # 5 % bad
    for limit, code in ((0.04, 1), (0.06, 0)):
        recipe = stage(tmp_path / "a.yaml", [{"path": str(folder)}], bad_share_limit=limit)
        assert check_data(recipe)[0] == 1
        assert check_data(recipe, "--fail-on", "limit")[0] == code
    lost = stage(tmp_path / "b.yaml", [{"path": str(folder)}, {"path": "nowhere"}], bad_share_limit=0.5)
    code, text, _ = check_data(lost, "--fail-on", "limit")
    assert code == 1 and "1 of 2 sources could not be read" in text and "training would not begin" in text


def test_interrupted(tmp_path, check_data, monkeypatch):
    from training.data.check.sample import SampleCheck

    def stop(self, index):
        raise KeyboardInterrupt

    monkeypatch.setattr(SampleCheck, "__call__", stop)
    code, text, report = check_data(good_folder(tmp_path / "d", 3), "--html", tmp_path / "p.html", "--preview", 2)
    assert code == 130 and "interrupted" in text and report["interrupted"]
    assert "Interrupted" in (tmp_path / "p.html").read_text()


def test_clean_copies(tmp_path, check_data):
    """Good records are kept as they were written, bad ones are gone; what cannot be copied is said."""
    folder = good_folder(tmp_path / "d", 6)
    lines = (folder / "records.jsonl").read_text().splitlines()
    odd = record("é \ud800", "ünd", images=("images/1.png",))
    write_records(folder, [*lines, "nonsense", odd, record("gone", images=("images/none.png",)), record("s1")])
    llava = [{"id": i, "image": f"images/{i}.png", "conversations": [
        {"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}]} for i in (1, 2, 3)]  # fmt: skip
    (folder / "llava.json").write_text(json.dumps(llava, indent=1))
    out = tmp_path / "clean"
    code, text, _ = check_data(folder, folder / "llava.json", tmp_path / "nowhere{0..1}.tar", "--write-clean", out)
    assert code == 1 and sorted(file.name for file in out.iterdir()) == ["d-llava.jsonl", "d.jsonl"]
    kept = [json.loads(line) for line in (out / "d.jsonl").read_text().splitlines()]
    assert kept == [*map(json.loads, lines), odd]
    assert f"{out}/d.jsonl: 7 good records of {folder}; read it with" in text
    assert [json.loads(line) for line in (out / "d-llava.jsonl").read_text().splitlines()] == llava[:2]
    assert check_data(out / "d.jsonl", "--media-root", folder)[0] == 0
    lines = (folder / "records.jsonl").read_text()
    (folder / "d.jsonl").write_text(lines)
    check_data(folder / "d.jsonl", "--limit", 7, "--write-clean", folder)
    assert (folder / "d.jsonl").read_text() == lines  # a source is not written over
