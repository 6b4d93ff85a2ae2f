"""The sweep's page and tables from a results file: every variant in it, the best marked, labels that do not meet."""

import json
import re

import pytest

from eval.report.sweep import main, markdown, page, text_rows, write
from eval.report.sweep_charts import Box, Mark, _free_place, cost_ticks, frontier, interval, scatter
from tests.helpers.balanced_html import Balanced
from tests.helpers.fake_sweep import VARIANTS, fake_results


def test_the_page_is_whole_fetches_nothing_and_escapes_words():
    text = page(fake_results())
    parser = Balanced()
    parser.feed(text)
    assert parser.open == [] and all(source.startswith("data:") for source in parser.sources)
    assert not re.search(r"url\(|@import|<script|https?://", text)
    assert "broken &lt;x&gt;" in text and "<x>" not in text and "ValueError: &lt;no&gt;" in text
    assert text.count("<svg") == 2
    for label, *_ in VARIANTS:
        assert text.count(f">{label}</text>") == 2, "a name beside its point in both plots"
    assert "tokens a page" in text and "(milliseconds)" in text and "share of 240 answers" in text


def test_tables_hold_every_variant_dearest_first_and_failures_last():
    results = fake_results()
    head, rows = text_rows(results)
    assert [row[0] for row in rows][:3] == ["mlp", "linear", "pixel_shuffle 2"]
    assert rows[-1][:2] == ["broken <x>", "failed"] and all(len(row) == len(head) for row in rows)
    assert rows[0][1:4] == ["48", "0.954", "0.974"]
    words = markdown(results)
    assert "| mlp | 48 | 0.954 |" in words and "- broken <x> failed: stage1 ended" in words
    table = [line for line in words.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 2 + len(rows)


def test_a_sweep_in_which_all_failed_still_gives_a_page():
    results = fake_results()
    results["variants"] = results["variants"][-1:]
    text = page(results)
    assert "<svg" not in text and "broken &lt;x&gt;" in text and "Failed" in text
    assert "failed" in markdown(results)


def test_the_page_is_made_again_from_its_results(tmp_path, capsys):
    write(fake_results(), tmp_path)
    (tmp_path / "report.html").unlink()
    results = json.loads((tmp_path / "results.json").read_text())
    results["variants"][0]["exact_match"] = 0.111
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main(["--run", str(tmp_path)]) == 0
    assert "0.111" in (tmp_path / "report.html").read_text() and "0.111" in (tmp_path / "sweep.md").read_text()
    assert main(["--run", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def marks(*points):
    return [Mark(f"m{i}", cost, score, 0, 1) for i, (cost, score) in enumerate(points)]


def test_frontier_keeps_what_nothing_cheaper_beats():
    found = frontier(marks((4, 0.5), (12, 0.9), (12, 0.95), (48, 0.94), (6, 0.4), (96, 0.96)))
    assert [(mark.cost, mark.score) for mark in found] == [(4, 0.5), (12, 0.95), (96, 0.96)]
    assert len(frontier(marks((4, 0.5), (12, 0.5)))) == 1, "as good and dearer is beaten"


def test_interval_holds_the_share_and_narrows_with_questions():
    for score in (0.0, 0.3, 1.0):
        low, high = interval(score, 240)
        assert 0 <= low <= score <= high <= 1 and high > low
    assert interval(0.5, 1000)[0] > interval(0.5, 50)[0]
    assert interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)  # Wilson's, by hand
    assert interval(0.0, 0) == (0.0, 1.0)


def test_cost_ticks_are_round():
    assert cost_ticks(3.2, 77, True) == [4, 8, 16, 32, 64]
    assert cost_ticks(110, 150, False) == [110, 120, 130, 140, 150]


def test_labels_keep_apart_and_inside():
    field, taken = Box(50, 20, 1016, 350), []
    for _ in range(12):  # twelve names at one point
        box, _, _ = _free_place(500, 100, 120, taken, field)
        assert not any(box.meets(other) for other in taken)
        assert field.left <= box.left and box.right <= field.right and field.top <= box.top
        taken.append(box)
    right, anchor, _ = _free_place(1000, 100, 120, [], field)
    assert anchor == "end" and right.right < 1000, "no room on the right: the name stands on the left"
    assert Box(0, 0, 10, 10).meets(Box(9, 9, 20, 20)) and not Box(0, 0, 10, 10).meets(Box(10, 0, 20, 10))


def test_points_stand_where_their_figures_say():
    drawn = scatter(marks((4, 0.25), (16, 0.5), (64, 1.0)), "x", "y", True)
    places = [tuple(map(float, pair)) for pair in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    (ax, ay), (bx, by), (cx, cy) = sorted(places)
    assert bx - ax == pytest.approx(cx - bx, abs=0.2), "four times the tokens is the same step"
    assert (ay - by) * 2 == pytest.approx(by - cy, abs=0.2) and cy < by < ay
