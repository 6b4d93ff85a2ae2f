"""The page about results files: what it says is what the files say, nothing is fetched, and words stay words."""

import json
import re

import pytest

from eval.report.charts import Ring
from eval.report.result_charts import NARROW, Whisker, histogram, whiskers
from eval.report.result_tables import answers_table, reasons, unreadable
from eval.report.results_page import main
from eval.results_file import distinct, read_results, short_name
from tests.helpers.balanced_html import Balanced
from tests.helpers.fake_run import write_run
from tests.helpers.small_results import CLOCK, read, row, write

pytest.importorskip("pydicom", reason="optional package absent")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    stages = {"stage1": (0.3, 10, 4.0, 3.0), "stage2": (0.9, 10, 3.0, 1.0)}
    folder = write_run(tmp_path_factory.mktemp("runs") / "demo", n=8, stages=stages)
    return sorted((folder / "eval").glob("*-videos-medical.json"))


def page_of(tmp_path, *paths):
    out, words = tmp_path / "page.html", tmp_path / "page.md"
    assert main([*map(str, paths), "--out", str(out), "--markdown", str(words)]) == 0
    return out.read_text(), words.read_text()


def checked(html):
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert parser.sources and all(source.startswith("data:") for source in parser.sources)
    assert not re.search(r"url\(|@import|<script|https?://", html)
    return parser


def test_the_page_of_one_file(files, tmp_path):
    html, words = page_of(tmp_path, files[1])
    headings = checked(html).headings
    assert headings == [
        "Figures", "All figures", "By kind of question", "With and without the expert", "What was confused with what",
        "What went wrong", "Speed", "Answers", "Conversations with experts", "Small print",
    ]  # fmt: skip
    data = read(files[1])
    spans = [(k, n, s) for k, f in data["tasks"].items() for n, s in f["intervals"].items()]
    assert len(spans) >= 2
    for task, name, (low, high) in spans:
        value = data["tasks"][task][name]
        assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in html, "in the plot"
        assert f"{value:.3f}<small>{low:.3f}–{high:.3f}</small>" in html, "in the table"
        assert f"{value:.3f} \\[{low:.3f}–{high:.3f}\\]" in words
    for control in ("frames shuffled", "expert withheld", "expert wrong"):
        assert control in html and control in words
    about = data["provenance"]
    for fact in (about["versions"]["torch"], about["tasks"]["medical"]["data"]["sha256"], "fake template"):
        assert fact in html
    assert "definition of accuracy" in html and "definition of accuracy" in words
    assert html.count('<article class="card">') >= 8 and 'class="frames"' in html and html.count("data:image/") > 8
    assert "<code>&lt;LESIONS()&gt;</code>" in html and html.count('<article class="card talk">') >= 4


def test_several_files_side_by_side(files, tmp_path):
    html, words = page_of(tmp_path, *files)
    checked(html)
    assert "<h1>stage1 and stage2</h1>" in html and "| stage1 | stage2 |" in words
    for number, path in enumerate(files, 1):
        figures = read(path)["tasks"]["medical"]
        low, high = figures["intervals"]["accuracy"]
        text = f"{figures['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        assert re.search(rf'fill="var\(--s{number}\)"><title>{re.escape(text)}', html), "each in its own colour"
    assert '<span class="who">stage1</span>' in html and '<span class="who">stage2</span>' in html
    assert "eval/compare.py" in html


def test_what_went_wrong_is_counted_named_and_given_its_reason(tmp_path):
    options = {"options": ["red", "blue"]}

    def choice(name, output):
        return row(name, 0.0, task="choices", output=output, scoring=options, scores={"mcq_accuracy": 0.0})

    rows = [row(f"ok{i}", 1.0) for i in range(9)]
    rows += [row(f"gone{i}", 0.0, output="", error="OSError: no such file") for i in range(2)]
    rows += [
        row("open", None, unscored="needs a judge model"),
        row("long", 0.0, stopped=False),
        row("void", 0.0, output=""),
    ]
    rows += [choice("says-b", "B"), choice("mumbles", "It could be either of them"), choice("thinks", "<think>so B")]
    rows.append(
        row("lost", 0.0, task="choices", output="", error="OSError: lost", scoring=options, scores=rows[-1]["scores"])
    )
    path = write(tmp_path / "r.json", rows)
    result = read_results(path)
    table = dict((cells[0], cells[1:]) for cells in answers_table([result]).rows)
    assert table["mine"] == ["14", "2", "1", "–", "1", "1"]
    assert table["choices"] == ["4", "1", "0", "2", "0", "0"], "what failed is not unreadable too"
    assert [r["id"] for r in unreadable(result.asked("choices"))] == ["mumbles", "thinks"]
    assert unreadable(result.asked("mine")) is None
    found = {(r.what, r.reason): r.ids for r in reasons([result])}
    assert found["failed", "OSError: no such file"] == ["gone0", "gone1"]
    assert found["not scored", "needs a judge model"] == ["open"]
    html, words = page_of(tmp_path, path)
    checked(html)
    for text in (html, words):
        assert "no such file" in text and "gone1" in text and "needs a judge model" in text and "mumbles" in text
    assert "not scored" in html and "18 answers, of which 3 failed" in html


def test_a_histogram_only_where_scores_are_more_than_right_or_wrong(tmp_path):
    rows = [row(f"s{i}", i / 10) for i in range(11)]
    html, _ = page_of(tmp_path, write(tmp_path / "a.json", rows))
    assert "Distribution of scores" in html and "2 of 11: 0.9 to 1" in html
    html, _ = page_of(tmp_path, write(tmp_path / "b.json", [row("a", 1.0), row("b", 0.0)]))
    assert "Distribution of scores" not in html
    assert histogram([0.05, 0.5, 0.55]).count("<rect") == 10


def test_speed_is_that_of_the_file(tmp_path):
    path = write(tmp_path / "a.json", [row("a", 1.0, media=["x.png"], media_tokens=64)])
    html, words = page_of(tmp_path, path)
    assert "2 000" in words.replace("\u202f", " ") and "| 64 |" in words and "25 %" in words
    assert "<title>prefill: 0.1000 s</title>" in html, f"{CLOCK['prefill_seconds']} s of {CLOCK['requests']} prompts"
    data = read(path)
    for name in ("requests", "seconds", "generate_seconds", "encode_seconds", "prefill_seconds"):
        del data["provenance"]["tasks"]["mine"][name]
    (tmp_path / "old.json").write_text(json.dumps(data))
    html, _ = page_of(tmp_path, tmp_path / "old.json")
    assert "<h2>Speed</h2>" not in html


def test_words_of_models_and_users_stay_words(tmp_path):
    bad = "<script>alert(1)</script></td>\x00 | ![x](http://e.vil)"
    rows = [
        row(bad, 0.5, output=bad, question=bad, answers=[bad], kind=bad), row("e", 0.0, output="", error=bad),
        row("u", None, unscored=bad, kind="other"),
    ]  # fmt: skip
    html, words = page_of(tmp_path, write(tmp_path / "a.json", rows, model=bad, about={"stop": [bad]}))
    assert "<script" not in html and "&lt;script&gt;" in html and "\x00" not in html
    parser = Balanced()
    parser.feed(html)
    assert parser.open == [] and all(source.startswith("data:") for source in parser.sources)
    assert "<script" not in words and "![x](" not in words


def test_long_documents_and_missing_files_keep_the_page_small(tmp_path):
    pages = [str(tmp_path / f"{i}.png") for i in range(40)]
    from PIL import Image

    for page in pages:
        Image.new("RGB", (40, 60), "white").save(page)
    rows = [row("long", 1.0, media=pages), row("gone", 0.0, media=[str(tmp_path / "none.png")])]
    html, _ = page_of(tmp_path, write(tmp_path / "a.json", rows))
    assert html.count("data:image/") == 8 and "and 32 more pictures" in html and "picture not available" in html


def test_files_that_are_no_results(tmp_path, capsys):
    (tmp_path / "x.json").write_text("[]")
    assert main([str(tmp_path / "x.json")]) == 2 and "x.json is no results file" in capsys.readouterr().err
    assert main([str(tmp_path / "y.json")]) == 2 and not list(tmp_path.glob("*.html"))


def test_names_of_models():
    assert short_name("runs/demo/export/") == "export" and short_name("org/Model-8B") == "Model-8B"
    assert short_name("openai:org/name@http://host:1/v1") == "name"
    paths = [type("P", (), {"stem": stem}) for stem in ("r1", "r2", "r2")]
    assert distinct(["m", "m", "n"], paths) == ["m (r1)", "m (r2)", "n"]
    assert distinct(["m", "m", "m"], [paths[1]] * 3) == ["m (r2) #1", "m (r2) #2", "m (r2) #3"]


def test_whiskers_hold_their_values_and_survive_odd_ones():
    rows = [
        Whisker("a", 0.5, (0.4, 0.6), [Ring("c 0.100", 0.1), Ring("d", None)]),
        Whisker("b", None),
        Whisker("c", 1.3, (1.0, 1.5)),
    ]
    for drawing in (whiskers([("g", rows)]), whiskers([("g", rows)], layout=NARROW)):
        assert "0.500 [0.400, 0.600]" in drawing and "c 0.100" in drawing and "nan" not in drawing
    dots = [float(x) for x in re.findall(r'cx="([\d.]+)" cy="[\d.]+" r="4.5" fill="var\(--s1\)"', drawing)]
    assert len(dots) == 2 and all(0 <= x <= NARROW.width for x in dots), "what is above 1 widens the axis"
    signed = whiskers([("", [Whisker("a", 0.1, (-0.1, 0.3))])], -0.5, 0.5, signed=True)
    assert "+0.100 [-0.100, +0.300]" in signed and "stroke-dasharray" in signed


def test_a_run_writes_its_report(tmp_path, monkeypatch, capsys):
    import eval.backends
    from eval.backends.radio import RadioBackend
    from eval.run import main as run
    from tests.eval.test_evaluate import documents, reader
    from tests.helpers.fake_vlm import FakeModel, FakeProcessor

    monkeypatch.setattr(
        eval.backends, "open_backend", lambda *args, **options: RadioBackend(FakeModel(reader), FakeProcessor())
    )
    data = documents(tmp_path / "data", n=6)
    words = ["--model", "fake", "--data", str(data), "--no-progress", "--report", "--out"]
    assert run([*words, str(tmp_path / "r.md")]) == 2 and "write over" in capsys.readouterr().err
    assert run([*words, str(tmp_path / "r.json")]) == 0
    assert "report   " in capsys.readouterr().out
    checked((tmp_path / "r.html").read_text())
    assert "| exact match | 1.000 \\[0.541–1.000\\] |" in (tmp_path / "r.md").read_text()
    assert read(tmp_path / "r.json")["provenance"]["tasks"]["documents"]["definitions"]["anls"]["definition"]


def test_gold_stands_where_an_answer_is_not_fully_right():
    from eval.report.samples import card

    right, wrong = row("a", 1.0), row("a", 0.0)
    assert "gold" not in card(right, ()) and "instead of" not in card(right, ())
    assert "instead of <b>yes</b>" in card(wrong, ())
    both = card(right, (), answers=[("one", right), ("two", wrong)])
    assert both.count("gold: <b>yes</b>") == 1 and "instead of" not in both
    assert both.index("one") < both.index("✓") < both.index("two") < both.index("✗") < both.index("gold:")
    assert "0.50" in card(row("a", 0.5), ()) and "not scored" in card(row("a", None), ())


def test_marks_tell_controls_and_directions_apart(tmp_path):
    options = {"options": ["red", "blue"]}

    def choice(name, score, **changes):
        scores = {"mcq_accuracy": score, "mcq_accuracy.lmms_eval.extract_mcq_answer": score}
        return row(name, score, task="ai2d", output="A", scoring=options, scores=scores, **changes)

    rows = [choice(f"s{i}", i % 2) for i in range(6)]
    rows += [choice(f"s{i}", 0.0, control=c) for i in range(3) for c in ("images_exchanged", "frames_shuffled")]
    rows += [choice(f"s{i}", 0.0, control=c) for i in range(6) for c in ("expert_withheld", "expert_wrong")]
    rows.append(row("open", None, unscored="needs a judge"))
    html, words = page_of(tmp_path, write(tmp_path / "a.json", rows, about={"task": "ai2d"}))
    checked(html)
    figures = html.split("<h2>Figures</h2>")[1].split("<h2>All figures</h2>")[0]
    for name, shape in (
        ("images exchanged", "hollow"), ("frames shuffled", "hollow square"), ("expert withheld", "hollow diamond"),
        ("expert wrong", "hollow cross"),
    ):  # fmt: skip
        assert f'<i class="{shape}"></i>{name}' in figures
    assert "multiple choice, rule lmms_eval.extract_mcq_answer" in figures, "not cut"
    assert "unreadable rate, lower is better" in figures and '<i class="lower"></i>lower is better' in figures
    assert figures.count("<polygon") == 2 and "frames shuffled 0.000 (0.333 unshuffled, 3 of 6 questions)" in figures
    assert "0.000<small>0.333 unshuffled, 3 of 6 questions</small>" in html
    assert "0.000 (0.333 unshuffled, 3 of 6 questions)" in words
    assert "7 answers, none failed, 1 not scored." in html


def test_rows_have_room_for_their_names():
    long = "multiple choice, rule lmms_eval.extract_mcq_answer"
    [left] = re.findall(rf'<text x="([\d.]+)" [^>]*>{long}', whiskers([("", [Whisker(long, 0.5)])]))
    assert float(left) >= 6.5 * len(long), "the name ends there and begins within the drawing"
    narrow = whiskers([("", [Whisker(long, 0.5)])], layout=NARROW)
    name, value = (re.search(rf'y="([\d.]+)"[^>]*>{words}<', narrow)[1] for words in (long, "0.500"))
    assert float(value) - float(name) == 15, "on a telephone the value stands below"


def test_kinds_without_a_name_and_headlines_over_some_are_named(tmp_path):
    rows = [row("a", 1.0), row("b", 0.0), row("c", 0.0, kind="receipt")]
    html, words = page_of(tmp_path, write(tmp_path / "a.json", rows))
    assert "| without kind | 2 |" in words and ">without kind<" in html and "mine, receipt" in html
    assert "mine ()" not in words and "mine, all" not in html
    rows = [
        row(f"v{i}", 1.0, task="videos", scores={"accuracy": 1.0}, kind=k) for i, k in enumerate(["direction", "n"])
    ]
    html, words = page_of(tmp_path, write(tmp_path / "b.json", rows, about={"task": "synthetic_videos"}))
    assert "videos (2 questions, headline over 1 of kind direction)" in words


def test_results_are_not_written_over(tmp_path, capsys):
    a, b, c = (write(tmp_path / f"{name}.json", [row("s", 1.0)]) for name in "abc")
    odd = write(tmp_path / "results.txt", [row("s", 1.0)])
    before = {path: path.read_bytes() for path in (a, b, c, odd)}
    (tmp_path / "a.html").write_text("the page of a alone")
    for option in ("--out", "--markdown"):
        for target, words in (
            (a, "one of the results files"), (c, "under the name of data"), (tmp_path / "new.json", "name of data"),
            (odd, "holds results"),
        ):  # fmt: skip
            assert main([str(a), str(b), option, str(target)]) == 2 and words in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before} and not (tmp_path / "new.json").exists()
    assert main([str(a), str(b), str(c)]) == 0
    assert (tmp_path / "a.html").read_text() == "the page of a alone"
    html = (tmp_path / "a-and-2-more.html").read_text()
    assert "<h1>one (a), one (b) and one (c)</h1>" in html
    assert main([str(a)]) == 0 and main([str(a), "--out", str(tmp_path / "a.html")]) == 0, "a page may be made again"
