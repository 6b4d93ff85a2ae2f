"""The stage × task table: files of one stage merge, stages keep their order, every figure finds its cell."""

import json

from eval.table import collect, label, render_figures, render_table, write_results

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


def test_a_control_over_fewer_questions_names_them():
    pairs = {
        "frames_shuffled": {"n": 4, "of": 8, "without": 0.75}, "images_exchanged": {"n": 0, "of": 8, "without": None},
    }  # fmt: skip
    figures = {"exact_match": 0.375, "n": 8, "controls": {"frames_shuffled": 0.5}, "control_pairs": pairs}
    text = render_figures({"tasks": {"mine": figures}})
    assert "– frames shuffled" in text and "0.500 (0.750 unshuffled, 4 of 8 questions)" in text
    assert "– images exchanged: possible for 0 of 8 questions\n" in text + "\n"
    stages = render_table({"stages": {"stage1": {"mine": figures}}})
    assert "mine, frames shuffled: 0.750 unshuffled, 4 of 8 questions (newest stage)" in stages
    assert "mine, images exchanged: possible for 0 of 8 questions" in stages
    del figures["control_pairs"]
    assert "of 8 questions" not in render_figures({"tasks": {"mine": figures}})


def test_records_without_a_kind_are_no_total():
    both = {"exact_match": 0.5, "n": 2, "kinds": {"all": {"exact_match": 1.0}, "receipt": {"exact_match": 0.0}}}
    for text in (render_figures({"tasks": {"mine": both}}), render_table({"stages": {"stage1": {"mine": both}}})):
        assert "· without kind" in text and "· all" not in text
    alone = {**both, "kinds": {"all": {"exact_match": 1.0}}}
    assert "· all" in render_figures({"tasks": {"mine": alone}})


def test_names_say_rule_and_direction_and_counts_are_no_figures():
    assert label("mcq_accuracy.lmms_eval.extract_mcq_answer") == "multiple choice, rule lmms_eval.extract_mcq_answer"
    assert label("unreadable_rate") == "unreadable rate, lower is better"
    assert label("v1.5_pages") == "v1.5 pages", "a kind with a dot has no rule"
    video = {"mcq_accuracy": 0.5, "n": 20, "questions": 40, "headline_kind": "direction", "without_subtitles": 3}
    text = render_figures({"tasks": {"videos": video}})
    assert "(40 questions, headline over 20 of kind direction, 3 without subtitles)" in text and "3.000" not in text
