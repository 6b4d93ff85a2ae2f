"""Speed: rates from the clock of a results file, and nothing where a backend did not measure."""

import pytest

from eval.speed import speed_line, speed_of
from eval.table import render_figures
from tests.helpers.small_results import CLOCK, results, row


def test_rates_from_the_clock():
    speed = speed_of(CLOCK)
    assert speed.prefill_tokens_per_second == 4000 / 2.0
    assert speed.decode_tokens_per_second == 60 / (3.0 - 2.0), "prefill is not decode"
    assert speed.encode_share == 1.0 / (1.0 + 3.0)
    assert (speed.prompt_tokens_per_request, speed.media_tokens_per_request) == (200, 150)
    assert speed.seconds_per_request == pytest.approx(3.5 / 20)
    assert (speed.encode_seconds, speed.prefill_seconds, speed.decode_seconds) == (1.0, 2.0, 1.0)


def test_what_was_not_measured_is_unknown_and_not_zero():
    speed = speed_of({**CLOCK, "prefill_seconds": 0.0})
    assert speed.prefill_tokens_per_second is None and speed.decode_tokens_per_second is None
    assert not speed.prefill_known and speed.decode_seconds == 3.0
    assert "prefill" not in speed_line(speed) and "0.17 s a question" in speed_line(speed)
    nothing = speed_of({})
    assert nothing.seconds_per_request is None and speed_line(nothing) == ""


def test_tokens_of_an_image_and_of_a_video():
    def shown(media, tokens, **changes):
        return {"media": media, "media_tokens": tokens, **changes}

    rows = [
        shown(["a.png", "b.jpg"], 100), shown(["c.dcm"], 80), shown(["a.MP4"], 512), shown(["a.png", "b.mp4"], 999),
        shown(["x.png"], 7, error="broken"), shown([], 0),
    ]  # fmt: skip
    speed = speed_of(CLOCK, rows)
    assert speed.media_tokens_per_image == 180 / 3
    assert speed.media_tokens_per_video == 512


def test_the_line_of_a_run():
    words = speed_line(speed_of(CLOCK, [{"media": ["a.png"], "media_tokens": 64}]))
    assert words == (
        "0.17 s a question · prefill 2 000 tokens/s · decode 60 tokens/s · encoding 25 % of the work"
        " · 64 tokens per image"
    )


def test_the_printed_table_has_intervals_counts_and_speed():
    rows = [row(f"s{i}", float(i % 4 != 0)) for i in range(40)]
    rows += [row("broken", 0.0, error="OSError: gone", output=""), row("judge", None, unscored="needs a judge")]
    data = results(rows)
    text = render_figures(data)
    low, high = data["tasks"]["mine"]["intervals"]["exact_match"]
    value = data["tasks"]["mine"]["exact_match"]
    assert low < value < high
    lines = text.splitlines()
    assert "mine (42 questions, 1 failed, 1 not scored)" in lines
    assert next(line for line in lines if "exact match" in line).split()[2:] == [
        f"{value:.3f}",
        f"[{low:.2f}–{high:.2f}]",
    ]
    assert any(line.startswith("  mine") and "prefill 2 000 tokens/s" in line for line in lines)
    starts = {line.index("0.") for line in lines[2:] if "exact match" in line or "ANLS" in line}
    assert len(starts) == 1, "figures stand below each other, interval or not"
