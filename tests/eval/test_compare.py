"""Comparison: differences are paired and clustered, changed samples are named, and unlike runs are called unlike."""

import random

import pytest

from eval.bootstrap import paired_interval
from eval.compare import main
from eval.comparison import compare
from eval.recorded import recorded_task
from eval.results_file import read_several
from tests.helpers.balanced_html import Balanced
from tests.helpers.small_results import row, write


def compared(a, b, metric=None):
    return compare(*read_several([a, b]), metric)


def scores(n=40, share=0.7, seed=0):
    rng = random.Random(seed)
    return {f"s{i:02d}": float(rng.random() < share) for i in range(n)}


def test_a_file_against_itself_changes_nothing(tmp_path, capsys):
    path = write(tmp_path / "a.json", [row(k, v) for k, v in scores().items()])
    assert main([str(path), str(path)]) == 0
    printed = capsys.readouterr().out
    assert "0 of 40 answers changed" in printed and "both are the same file" in printed
    [task] = compared(path, path).tasks
    assert (task.better, task.worse, task.equal, task.changed) == (0, 0, 40, [])
    assert (task.estimate.value, task.estimate.low, task.estimate.high) == (0.0, 0.0, 0.0)


def test_a_planted_regression_of_three_samples_is_found_and_named(tmp_path, capsys):
    before = scores()
    planted = [name for name, score in before.items() if score == 1.0][:3]
    gained = next(name for name, score in before.items() if score == 0.0)
    after = {**before, **dict.fromkeys(planted, 0.0), gained: 1.0}
    a = write(tmp_path / "a.json", [row(k, v) for k, v in before.items()], model="models/old")
    b = write(tmp_path / "b.json", [row(k, v) for k, v in reversed(after.items())], model="models/new")
    [task] = compared(a, b).tasks
    assert [change.a["id"] for change in task.changed] == [*planted, gained], "losses first"
    assert [change.kind for change in task.changed] == ["right → wrong"] * 3 + ["wrong → right"]
    assert (task.better, task.worse, task.equal) == (1, 3, 36)
    assert task.estimate.value == pytest.approx(-2 / 40)
    assert task.warnings == [] and compared(a, b).warnings == []
    page = tmp_path / "out/cmp.html"
    assert main([str(a), str(b), "--out", str(page)]) == 0
    printed, html = capsys.readouterr().out, page.read_text()
    for name in (*planted, gained):
        assert name in printed and name in html
    assert "right → wrong" in printed and "new against old" in html
    assert not any(name in html.split("Small print")[0] for name in before if name not in (*planted, gained))


def test_differences_are_those_of_the_clustered_bootstrap(tmp_path):
    rows_a = [row(k, v, group=f"g{i // 4}") for i, (k, v) in enumerate(scores(seed=1).items())]
    rows_b = [row(k, v, group=f"g{i // 4}") for i, (k, v) in enumerate(scores(seed=2, share=0.5).items())]
    [task] = compared(write(tmp_path / "a.json", rows_a), write(tmp_path / "b.json", rows_b)).tasks
    aggregate = recorded_task("mine", {"metrics": ["exact_match"]}, rows_a).aggregates()["exact_match"]
    assert task.estimate == paired_interval(aggregate, rows_a, rows_b)
    assert task.estimate.clusters == 10 and task.estimate.low < task.estimate.value < task.estimate.high
    assert list(task.others) == ["anls"]


def test_what_differs_beside_the_model_is_said(tmp_path, capsys):
    rows = [row(k, v) for k, v in scores(12).items()]
    other = [{**r, "input_hash": "another"} if i < 2 else r for i, r in enumerate(rows[:-3])]
    other[4] = {**other[4], "prompt": "Answer shortly."}
    a = write(tmp_path / "a.json", [*rows, row("x", 1.0, task="alone")])
    about = {"max_new_tokens": 16, "data": {"sha256": "e", "split": "val"}, "definitions": {"anls": {"code": "1"}}}
    b = write(tmp_path / "b.json", other, model="models/two", about=about, seed=7)
    found = compared(a, b)
    [task] = found.tasks
    words = "\n".join([*found.warnings, *task.warnings])
    for expected in (
        "other inputs (words, pictures or videos) of 2 samples: s00, s01", "of 1 samples: s04",
        "3 samples only in one, left out: s09, s10, s11", "lengths of answers differ: 8 and 16",
        "data differ (sha256): d and e", "seeds differ: 0 and 7",
        "only in one: alone",
    ):  # fmt: skip
        assert expected in words, words
    assert task.estimate.n == 9
    assert main([str(a), str(b)]) == 0 and "differ in more than the model" in capsys.readouterr().out


def test_a_changed_definition_is_no_progress(tmp_path):
    rows = [row("a", 1.0), row("b", 0.0)]
    of = [{"definitions": {"exact_match": {"definition": "d", "code": code}}} for code in ("1", "2")]
    a, b = (write(tmp_path / f"{i}.json", rows, about=about) for i, about in enumerate(of))
    assert any("definition of exact_match differs" in words for words in compared(a, b).tasks[0].warnings)


def test_a_chosen_metric(tmp_path, capsys):
    a = write(tmp_path / "a.json", [row("p", 0.0, scores={"exact_match": 0.0, "anls": 0.8}), row("q", 1.0)])
    b = write(tmp_path / "b.json", [row("p", 0.0, scores={"exact_match": 0.0, "anls": 0.1}), row("q", 1.0)])
    assert compared(a, b).tasks[0].changed == []
    [task] = compared(a, b, "anls").tasks
    assert (task.figure, task.metric, task.worse) == ("anls", "anls", 1) and task.changed[0].kind == "right → wrong"
    assert main([str(a), str(b), "--metric", "bleu4"]) == 2
    error = capsys.readouterr().err
    assert "no common task" in error and "anls, exact_match" in error and "rescore" in error


def test_runs_with_other_headlines_are_compared_by_one_metric(tmp_path):
    rows = [row(f"s{i}", 0.0, scores={"exact_match": 0.0, "anls": 0.9}) for i in range(4)]
    swapped = [{**r, "score": 0.9, "scores": {"anls": 0.9, "exact_match": 0.0}} for r in rows]
    [task] = compared(write(tmp_path / "a.json", rows), write(tmp_path / "b.json", swapped)).tasks
    assert task.changed == [] and any("metrics differ" in words for words in task.warnings)


def test_a_judges_points_are_compared_too(tmp_path):
    """They are in the rows that waited for a judge alone."""
    nothing = {"exact_match": None, "anls": None}
    files = []
    for name, points in (("a", 0.25), ("b", 0.75)):
        rows = [row(f"open{i}", points, scores={**nothing, "judge": points}) for i in range(4)]
        files.append(write(tmp_path / f"{name}.json", [row("closed", 1.0), *rows]))
    [task] = compared(*files).tasks
    assert (task.figure, task.estimate.value, task.estimate.n) == ("exact_match", 0.0, 1)
    assert (task.others["judge"].value, task.others["judge"].n) == (0.5, 4)
    [task] = compared(*files, "judge").tasks
    assert (task.figure, task.estimate.value, task.better, task.equal) == ("judge", 0.5, 4, 0)


def test_unscored_samples_take_no_part(tmp_path):
    a = write(tmp_path / "a.json", [row("a", None, unscored="needs a judge"), row("b", 1.0)])
    b = write(tmp_path / "b.json", [row("a", 1.0), row("b", 0.0)])
    [task] = compared(a, b).tasks
    assert (task.better, task.worse, task.equal, task.estimate.n) == (0, 1, 0, 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{torn", "b.json is no results file of eval/run.py: not JSON"),
        ('{"tasks": {}}', "it has no samples, provenance"),
        ('{"format": 9, "tasks": {}, "samples": [], "provenance": {}}', "has format 9"),
        ('{"tasks": {}, "samples": [{"id": "x"}], "provenance": {}}', "sample 0 has no task, control, output, score"),
        ('{"tasks": {"b": {}}, "samples": [], "provenance": {}}', "no task in common: .*a.json has mine and .*has b"),
        (None, "b.json: no such results file"),
    ],
)
def test_files_that_cannot_be_compared(tmp_path, capsys, content, expected):
    a = write(tmp_path / "a.json", [row("a", 1.0)])
    if content is not None:
        (tmp_path / "b.json").write_text(content)
    assert main([str(a), str(tmp_path / "b.json")]) == 2
    import re

    assert re.search(expected, capsys.readouterr().err)


def test_words_of_models_stay_words(tmp_path, capsys):
    rows = {"a": "yes", "b": "</td><script>alert(1)</script>\x1b[2J | ![x](http://e.vil)"}
    a, b = (
        write(
            tmp_path / f"{name}.json",
            [row("<b>s</b>", float(output == "yes"), "mine\x1b[2J", output=output)],
            model="m\x1b[2J",
        )
        for name, output in rows.items()
    )
    assert main([str(a), str(b), "--markdown", "--out", str(tmp_path / "c.html")]) == 0
    markdown, html = capsys.readouterr().out, (tmp_path / "c.html").read_text()
    parser = Balanced()
    parser.feed(html)
    assert parser.open == [] and all(source.startswith("data:") for source in parser.sources)
    assert "<script" not in html and "&lt;script&gt;" in html and "<b>s</b>" not in html
    assert "<script" not in markdown and "![x](" not in markdown and "\x1b" not in markdown
    table = [line for line in markdown.splitlines() if line.startswith("| &lt;b")]
    assert len(table) == 1 and table[0].replace("\\|", "").count("|") == 8, "one row of seven cells"
    assert main([str(a), str(b)]) == 0 and "\x1b" not in capsys.readouterr().out


def test_a_blind_run_is_named_once(tmp_path):
    rows = [row(k, v) for k, v in scores(12).items()]
    a = write(tmp_path / "a.json", rows)
    b = write(tmp_path / "b.json", [{**r, "input_hash": "words alone", "prompt": "words"} for r in rows], blind=True)
    found = compared(a, b)
    assert found.warnings == ["A was asked with its images and videos, B without (blind)"]
    assert found.tasks[0].warnings == []
    assert compared(b, a).warnings == ["B was asked with its images and videos, A without (blind)"]


def test_sides_of_one_model_are_told_apart(tmp_path, capsys):
    rows = [row(k, v) for k, v in scores(12).items()]
    a = write(tmp_path / "mine.json", rows, model="runs/export")
    b = write(tmp_path / "nothing.json", [{**r, "score": 0.0} for r in rows], blind=True, model="runs/export")
    page = tmp_path / "c.html"
    assert main([str(a), str(b), "--out", str(page)]) == 0
    printed, html = capsys.readouterr().out, page.read_text()
    assert "<h1>export (nothing) against export (mine)</h1>" in html
    assert "A is runs/export (mine.json), B is runs/export (nothing.json, without media)." in html
    assert f"B  runs/export ({b}, without media)" in printed
    assert main([str(a), str(b), "--markdown"]) == 0
    assert "A: runs/export (mine.json) · B: runs/export (nothing.json, without media)" in capsys.readouterr().out


def test_the_prompt_of_a_server_is_not_compared(tmp_path):
    rows = [row(k, v) for k, v in scores(12).items()]
    sent = [{**r, "prompt": "user: what was sent"} for r in rows]
    a = write(tmp_path / "a.json", rows)
    b = write(tmp_path / "b.json", sent, model="openai:m@http://127.0.0.1:1/v1")
    found = compared(a, b)
    assert found.warnings == ["the prompt of a server is not known (B)"] and found.tasks[0].warnings == []
    c = write(tmp_path / "c.json", rows, model="openai:n@http://127.0.0.1:1/v1")
    assert compared(b, c).warnings == [] and "other prompts" in compared(b, c).tasks[0].warnings[0]


def test_changed_samples_stand_under_heads(tmp_path, capsys):
    a, b = (write(tmp_path / f"{name}.json", [row("s", score)]) for name, score in (("a", 1.0), ("b", 0.0)))
    assert main([str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    [place] = [i for i, line in enumerate(lines) if line.startswith("mine: 1 of 1 answers changed their score")]
    assert lines[place + 1].split() == ["sample", "change", "scores", "question", "A", "B", "gold"]
    assert lines[place + 1].index("gold") == lines[place + 2].rindex("yes")


def test_results_are_not_written_over(tmp_path, capsys):
    a, b = (write(tmp_path / f"{name}.json", [row("s", score)]) for name, score in (("a", 1.0), ("b", 0.0)))
    before = a.read_bytes()
    for target in (a, tmp_path / "new.json"):
        assert main([str(a), str(b), "--out", str(target)]) == 2
        assert str(target) in capsys.readouterr().err
    assert a.read_bytes() == before and not (tmp_path / "new.json").exists()


def test_what_an_expert_said_is_no_other_input(tmp_path):
    def talk(first, *later):
        turns = [{"role": "user", "text": first}, *({"role": "assistant", "text": text} for text in later)]
        return [row("a", 1.0, turns=turns, input_hash=str(later), prompt=str(turns))]

    a = write(tmp_path / "a.json", talk("Size?", "27"))
    b = write(tmp_path / "b.json", talk("Size?", "<LESIONS()>", "27"))
    c = write(tmp_path / "c.json", talk("How large?", "27"))
    assert compared(a, b).tasks[0].warnings == []
    assert any("other prompts" in words for words in compared(a, c).tasks[0].warnings)
