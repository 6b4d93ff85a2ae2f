"""What `radio-vlm check-data` shows: samples with their masked text in grey, the page, the plots."""

import json
import re

import numpy as np
import pytest

from tests.helpers.balanced_html import Balanced
from tests.helpers.data_folders import good_folder, record, write_image, write_records
from tests.helpers.tiny_processor import tiny_processor
from tests.training.data.check.receipts import receipts
from training.data.check import Job, check
from training.data.check.preview import Preview, Segment, previews
from vlm.cli import loading
from vlm.cli.check_data_charts import bars, histogram, size_map
from vlm.cli.check_data_text import GREY, MASKED, PLAIN, preview_text, sparkline
from vlm.cli.main import main


@pytest.fixture(autouse=True)
def fake_model(monkeypatch):
    monkeypatch.setattr(loading, "load_processor", lambda name: tiny_processor())


def page(tmp_path, *arguments) -> str:
    file = tmp_path / "page.html"
    main(["check-data", *map(str, arguments), "--html", str(file)])
    return file.read_text(encoding="utf-8")


def two_turns(folder):
    one = record("two", "Which colour?", "Red it is.", ("a.png",))
    one["messages"] = [{"role": "system", "content": "Be brief."}, *one["messages"]]
    one["messages"] += [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Blue."}]
    write_image(folder / "a.png")
    return write_records(folder, [one])


def test_learned_text_is_exactly_the_assistants(tmp_path):
    jobs, processor = [Job(two_turns(tmp_path / "d"))], tiny_processor()
    report = check(jobs, processor, workers=0)
    (shown,) = previews(report, jobs, processor, 3)
    end = "<|im_end|>"
    assert [one.text for one in shown.segments if one.learned] == [f"Red it is.{end}", f"Blue.{end}"]
    (image,) = [one for one in shown.segments if one.medium]
    assert re.fullmatch(r"\[image 40×30 → \d+ tokens\]", image.text) and not image.learned
    masked = "".join(one.text for one in shown.segments if not one.learned)
    for words in ("Be brief.", "Which colour?", "And now?", "<|im_start|>assistant"):
        assert words in masked
    sample = report.opened[0][0]
    encoded = processor.encode(sample.resolved_messages())
    assert shown.tokens == len(encoded["input_ids"]) and shown.trained == int((encoded["labels"] != -100).sum())


def test_masked_text_is_grey_in_the_terminal(tmp_path, capsys):
    folder = two_turns(tmp_path / "d")
    main(["check-data", str(folder), "--model", "m", "--preview", "1", "--color", "always"])
    text = capsys.readouterr().out
    grey = "".join(re.findall(re.escape(GREY) + "(.*?)" + re.escape(PLAIN), text, re.DOTALL))
    plain = re.sub(re.escape(GREY) + ".*?" + re.escape(PLAIN), "|", text, flags=re.DOTALL)
    assert "Be brief." in grey and "Which colour?" in grey and "Red it is." not in grey
    assert "Red it is.<|im_end|>|" in plain and "Which colour?" not in plain
    main(["check-data", str(folder), "--model", "m", "--preview", "1"])  # no terminal: no colours
    text = capsys.readouterr().out
    assert "\x1b" not in text and "«Red it is.<|im_end|>»" in text and "learned" in text
    main(["check-data", str(folder), "--preview", "1"])
    text = capsys.readouterr().out
    assert "assistant: «Red it is.»" in text and "[image]" in text and "None" not in text


def test_previews_are_spread_and_good(tmp_path):
    folder = good_folder(tmp_path / "d", 9)
    lines = (folder / "records.jsonl").read_text().splitlines()
    jobs = [Job(write_records(folder, ["nonsense", *lines]))]
    report = check(jobs, workers=0)
    assert [one.id for one in previews(report, jobs, None, 3)] == ["s0", "s4", "s8"]
    assert len(previews(report, jobs, None, 99)) == 9


def test_data_cannot_steer_the_terminal(tmp_path, capsys):
    row = record("\x1b[2Jid", "\x1b]0;title\x07 half \ud800", "\x1b[31mred", ("\x1b[5m.png",))
    folder = write_records(tmp_path / "d", [row, record("fine", "\x1b[2J", "\x1b[31mred")])
    assert main(["check-data", str(folder), "--preview", "2"]) == 1
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\\x1b[31mred" in text and "missing_file" in text


def test_long_masked_text_is_shortened():
    one = Preview("s", "f:1", "i", [Segment("a" * (MASKED + 500), False), Segment("b" * 9000, True)], 9, 3)
    text = preview_text([one], color=False)
    assert "characters not shown" in text and text.count("a") < MASKED and text.count("b") == 9000


EVIL = '</div><script>alert("x")</script><img src="http://evil.example/a.png">'


def test_page(tmp_path):
    """Balanced, of its own: nothing is fetched, and data stay data."""
    train = receipts(tmp_path / "train<b>", range(6), question=f"What does it say? {EVIL}")
    lines = (train / "records.jsonl").read_text().splitlines()
    write_records(train, [*lines, lines[0].replace('"s0"', '"again"'), json.dumps(record(f"long {EVIL}", "Q" * 400)),
                          json.dumps(record("half \ud800", "a", "b")), EVIL])  # fmt: skip
    held = receipts(tmp_path / "held", range(5, 8), "h", quality=70)
    html = page(tmp_path, train, "--against", held, "--model", "m", "--max-length", 300)
    reader = Balanced()
    reader.feed(html)
    assert not reader.open and reader.headings == [
        "Sources", "Problems", "Held-out samples that are in training", "Lengths", "Languages", "Picture sizes",
        "As the model sees it", "Duplicates in training"]  # fmt: skip
    assert reader.sources and all(source.startswith("data:image/") for source in reader.sources)
    assert "<script" not in html and "evil.example/a.png&quot;" in html and "<b>/" not in html
    assert "@import" not in html and "url(" not in html
    assert "max_length 300" in html and "var(--wrong)" in html and html.count('class="pair"') >= 1
    assert re.search(r"<b>It is 0 and no more\.&lt;\|im_end\|&gt;</b>", html)
    assert not re.search(r"<b>[^<]*What does it say", html)


def test_page_of_data_that_are_in_order(tmp_path):
    folder = good_folder(tmp_path / "d", 4)
    html = page(tmp_path, folder)
    reader = Balanced()
    reader.feed(html)
    assert "Everything is in order" in html and "Problems" not in reader.headings and "prefers-color-scheme" in html
    html = page(tmp_path, folder, tmp_path / "nowhere{0..1}.tar")
    assert "1 of 2 sources cannot be read" in html


def bar_colours(drawing: str) -> list[str]:
    return re.findall(r'<rect [^>]*fill="var\(--(\w+)\)"', drawing)


def test_histogram_tells_what_is_too_long():
    within = histogram([10, 50, 100], 100, "tokens")
    assert set(bar_colours(within)) == {"accent"}  # a sample of max_length fits
    beyond = histogram([10, 50, 100, 101], 100, "tokens")
    assert bar_colours(beyond).count("wrong") == 1
    outlier = histogram([*range(90, 100)] * 40 + [50_000], 100, "tokens")
    assert "up to 50,000" in outlier and bar_colours(outlier).count("accent") >= 3
    total = [int(n.replace(",", "")) for n in re.findall(r"tokens: ([\d,]+)</title>", outlier)]
    assert sum(total) == 401
    for values in ([0], [1], [], [7, 7, 7]):
        assert "<svg" in histogram(values, None, "characters")


def test_other_plots():
    drawing = bars({"English": 9, **{f"language {i}": 1 for i in range(14)}})
    assert "English" in drawing and "39.1%" in drawing and "5 others" in drawing
    drawing = size_map(np.array([1000, 1000, 64]), np.array([1400, 1400, 64]))
    assert drawing.count("<title>") == 2 and "pixels: 2<" in drawing
    assert sparkline(np.array([5, 10, 500]), 100).endswith("0…100+") and sparkline(np.array([0, 0])).endswith("0…0")
