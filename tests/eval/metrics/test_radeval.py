"""Metrics of RadEval against a stand-in package with its API as read at 2.2.1. The real networks are not run here."""

import json
import sys
from types import ModuleType

import pytest

from eval.aggregates.chexbert_f1 import ChexbertF1
from eval.metrics import chexbert_f1 as chexbert
from eval.metrics import get_metric
from eval.metrics import green as green_module
from eval.metrics import radgraph_f1 as radgraph
from eval.metrics._radeval import MissingPackageError, Remembered
from eval.rescore import main as rescore
from eval.results_file import read_results
from eval.run import main as run
from tests.helpers.small_results import row, write

NAMES = ("radgraph_f1", "chexbert_f1", "green")


def words(text):
    return set(text.lower().replace(".", "").split())


class F1RadGraph:
    """`forward(refs, hyps)` -> (means, (simple, partial, complete) lists, annotations, annotations)."""

    calls = []

    def __init__(self, reward_level, model_type=None):
        assert (reward_level, model_type) == ("all", "radgraph-xl")

    def __call__(self, refs, hyps):
        self.calls.append(len(refs))
        simple = [len(words(a) & words(b)) / len(words(a) | words(b)) for a, b in zip(refs, hyps)]
        levels = (simple, [one / 2 for one in simple], [one / 4 for one in simple])
        return tuple(sum(level) / len(level) for level in levels), levels, [], []


class F1CheXbert:
    """`get_labels(reports)` -> 14 numbers 0 or 1 a report, in the order of TARGET_NAMES."""

    TARGET_NAMES = list(chexbert.OBSERVATIONS)

    def __init__(self, *, device):
        assert device in ("cpu", "cuda")

    def get_labels(self, reports):
        assert all(isinstance(report, str) and report.strip() for report in reports)
        return [[int(name.split()[-1].lower() in words(report)) for name in self.TARGET_NAMES] for report in reports]


class GREEN:
    """`(refs, hyps)` -> (mean, standard deviation, scores, table)."""

    calls = []

    def __init__(self, model_name, output_dir="."):
        assert model_name == "StanfordAIMI/GREEN-radllama2-7b"

    def __call__(self, refs, hyps):
        self.calls.append(len(refs))
        scores = [None if "odd" in hyp else int(ref == hyp) for ref, hyp in zip(refs, hyps)]
        return 0.0, 0.0, scores, "table"


@pytest.fixture
def forgotten(monkeypatch):
    """What was asked before is not known."""
    for module in (chexbert, green_module, radgraph):
        monkeypatch.setattr(module, "remembered", Remembered(module.open_scorer, module.ask))
    F1RadGraph.calls, GREEN.calls = [], []


@pytest.fixture
def radeval(monkeypatch, forgotten):
    for name, scorer in (("radgraph", F1RadGraph), ("f1chexbert", F1CheXbert), ("green_score", GREEN)):
        module = ModuleType(f"radeval.metrics.{name}")
        setattr(module, scorer.__name__, scorer)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("radeval", "radeval.metrics"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


def test_radgraph(radeval):
    score = get_metric("radgraph_f1")
    assert score("Edema left.", ["edema right"]) == pytest.approx(1 / 6)
    assert score("edema left", ["edema right"], level="simple") == pytest.approx(1 / 3)
    assert score("edema", ["no", "edema"], level="simple") == 1.0  # the better of two references
    assert score("", ["edema"]) == score("edema", []) == score("edema", [None]) == 0.0
    with pytest.raises(ValueError, match="unknown rule 'all'"):
        score("a", ["b"], level="all")


def test_green(radeval):
    score = get_metric("green")
    assert score("clear", ["clear"]) == 1.0 and score("clear", ["edema"]) == 0.0 == score("odd", ["odd"])
    assert score(" ", ["clear"]) == 0.0 and GREEN.calls == [1, 1, 1]  # an empty report costs no call


def test_chexbert(radeval):
    score = get_metric("chexbert_f1")
    assert score("edema and fracture", ["Edema."]) == pytest.approx(2 / 3)
    assert score("well", ["fine"]) == 1.0 and score("", ["edema"]) == 0.0 == score("edema", [])


def test_chexbert_over_the_corpus(radeval):
    rows = [
        {"id": "a", "output": "edema and fracture", "answers": ["edema"]},
        {"id": "b", "output": "", "answers": ["pneumonia and edema"]},
        {"id": "c", "output": "edema", "answers": ["edema"], "error": "failed"},
        {"id": "d", "output": "edema", "answers": []},
    ]
    assert ChexbertF1().value(rows) == pytest.approx(2 * 1 / (2 * 1 + 1 + 3))
    # edema 1 of 1 + 2 missed: 0.5; fracture and pneumonia 0
    assert ChexbertF1("macro").value(rows) == pytest.approx((0.5 + 0 + 0) / 3)
    assert ChexbertF1(labels=chexbert.FIVE).value(rows) == pytest.approx(2 / (2 + 2))


def reports(path):
    rows = [row("a", 0.0, task="reports", output="edema left", answers=["Edema right"]),
            row("b", 0.0, task="reports", output="clear", answers=["clear"])]  # fmt: skip
    return write(path, rows)


def test_stored_reports_are_scored_at_once_and_references_stay_raw(radeval, tmp_path):
    before = reports(tmp_path / "r.json")
    assert rescore([str(before), "--metric", ",".join(NAMES), "--out", str(tmp_path / "n.json")]) == 0
    data = read_results(tmp_path / "n.json").data
    figures = data["tasks"]["reports"]
    assert figures["radgraph_f1"] == round((1 / 6 + 1 / 2) / 2, 4) and figures["green"] == 0.5
    assert figures["chexbert_f1"] == 1.0
    assert F1RadGraph.calls == [2] and GREEN.calls == [2]  # one call for all
    assert [one["answers"] for one in data["samples"]] == [["Edema right"], ["clear"]]


def test_a_run_scores_its_answers_at_once(radeval, tmp_path):
    from eval.evaluate import evaluate
    from eval.jobs import job_for_data
    from eval.tasks.base import Options
    from tests.helpers.scripted_backend import ScriptedBackend

    lines = [{"id": str(n), "question": "Report?", "answers": [answer]} for n, answer in enumerate(("edema", "clear"))]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = job_for_data(tmp_path / "q.jsonl", "radgraph_f1,green")
    results = evaluate(ScriptedBackend(lambda _: "clear"), [job], Options(), progress=False)
    assert results["tasks"]["q"]["green"] == 0.5 and GREEN.calls == F1RadGraph.calls == [2]


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_the_message_says_what_to_install(forgotten, monkeypatch, tmp_path, capsys, name):
    monkeypatch.setitem(sys.modules, "radeval", None)
    with pytest.raises(MissingPackageError, match=f"{name} needs RadEval: pip install radeval .*downloaded"):
        get_metric(name)("a", ["b"])
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "a", "question": "Q?", "answer": "A"}) + "\n")
    asked = ["--model", "no-model", "--data", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "o.json")]
    assert run([*asked, "--metric", f"anls,{name}"]) == 2  # before a model is opened
    assert "pip install radeval" in capsys.readouterr().err
    assert rescore([str(reports(tmp_path / "r.json")), "--metric", name]) == 2
    assert "pip install radeval" in capsys.readouterr().err


def test_a_download_that_fails_is_told_and_not_tried_again(forgotten, monkeypatch):
    tries = []

    def broken():
        tries.append(1)
        raise RuntimeError("no network")

    memory = Remembered(broken, radgraph.ask)
    for _ in range(3):
        with pytest.raises(ValueError, match="RadEval failed: RuntimeError: no network"):
            memory.prepare([("a", "b")])
    assert tries == [1]


def test_several_metrics_can_be_named(tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "a", "question": "Q?", "answer": "A"}) + "\n")
    asked = ["--model", str(tmp_path / "none"), "--data", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "o.json")]
    assert run([*asked, "--metric", "anls,token_f1"]) == 2
    said = capsys.readouterr().err
    assert "unknown metric" not in said and "none" in said
