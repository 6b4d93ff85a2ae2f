"""The stage × task table: files of one stage merge, stages keep their order, every figure finds its cell."""

import json

from eval.table import collect, render_figures, render_table, write_results

DOCUMENTS = {
    "exact_match": 0.91, "anls": 0.95, "n": 200, "failed": 0,
    "kinds": {
        "form": {"exact_match": 0.8, "images_exchanged": 0.01, "n": 50},
        "receipt": {"exact_match": 0.97, "images_exchanged": 0.03, "n": 50},
    },
    "controls": {"images_exchanged": 0.02},
}  # fmt: skip
MEDICAL = {
    "accuracy": 0.93,
    "n": 200,
    "trigger_precision": 1.0,
    "trigger_recall": 0.99,
    "controls": {"expert_wrong": None},
}


def write(path, tasks):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"tasks": tasks}))


def test_collect_merges_files_of_a_stage(tmp_path):
    write(tmp_path / "eval/stage2-documents.json", {"documents": DOCUMENTS})
    write(tmp_path / "eval/stage2-videos-medical.json", {"medical": MEDICAL})
    write(tmp_path / "eval/stage10.json", {"documents": DOCUMENTS})
    write(tmp_path / "eval/stage1.json", {"documents": DOCUMENTS | {"exact_match": 0.1}})
    results = collect(tmp_path)
    assert list(results["stages"]) == ["stage1", "stage2", "stage10"]
    assert results["stages"]["stage2"] == {"documents": DOCUMENTS, "medical": MEDICAL}
    write_results(results | {"wall_seconds": 1.0}, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text())["wall_seconds"] == 1.0


def test_table_has_a_cell_for_every_figure():
    stages = {
        "stage1": {"documents": DOCUMENTS | {"exact_match": 0.123}},
        "stage2": {"documents": DOCUMENTS, "medical": MEDICAL},
    }
    lines = render_table({"stages": stages}).splitlines()
    found = {" ".join(line.split()[:-2]): line.split()[-2:] for line in lines[2:]}
    assert lines[0].split() == ["stage", "1", "stage", "2"]
    assert found["exact match"] == ["0.123", "0.910"]
    assert found["trigger recall"] == ["–", "0.990"]
    assert found["– expert wrong"] == ["–", "–"]
    text = "\n".join(lines)
    assert text.index("· receipt") > text.index("· form") > text.index("– images exchanged")
    assert [line.split()[-1] for line in lines if "images exchanged" in line] == ["0.020", "0.010", "0.030"]


def test_one_model_and_no_model():
    assert "0.950" in render_figures({"tasks": {"documents": DOCUMENTS}})
    assert render_table({"stages": {}}) == "no results yet"
