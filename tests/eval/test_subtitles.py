"""Subtitle files as they are found, and which subtitles go with which frames."""

import json

import pytest

from eval.subtitles import Subtitle, between_frames, on_screen, read_json, read_srt, seconds

SRT = """\ufeff1\r
00:00:01,500 --> 00:00:03,000\r
<font color="white" size=".72c">Hello <b>there</b></font>\r
second line\r
\r
2
01:00:00.250 --> 01:00:01,000 X1:0
5
3
00:00:00,000 --> 00:00:01,000
{\\an8}first

4
00:00:09,000 --> 00:00:10,000

"""


def test_srt(tmp_path):
    """Marks of order and byte, both line ends, tags, several lines, a missing blank line, out of order, empty."""
    path = tmp_path / "a.srt"
    path.write_bytes(SRT.encode())
    assert read_srt(path) == [
        Subtitle(0.0, 1.0, "first"),
        Subtitle(1.5, 3.0, "Hello there second line"),
        Subtitle(3600.25, 3601.0, "5"),
    ]
    path.write_bytes("1\n00:00:01,0 --> 00:00:02,0\ncaf\xe9 3 < 4\n".encode("latin-1"))
    assert read_srt(path) == [Subtitle(1.0, 2.0, "caf\ufffd 3 < 4")]


def test_srt_that_is_none(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text("")
    assert read_srt(path) == []
    path.write_text("Not found")
    with pytest.raises(ValueError, match="a.srt: no subtitles: there is no line with a time range"):
        read_srt(path)


def test_clocks():
    assert seconds("01:02:03,500") == 3723.5 and seconds("2:03.25") == 123.25
    with pytest.raises(ValueError, match="'soon' is no time"):
        seconds("soon")


def test_json_of_both_forms(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"start": "00:00:12.500", "end": "00:00:14.000", "line": " he\nsits "}]))
    assert read_json(path, shift=10.0) == [Subtitle(2.5, 4.0, "he sits")]
    entries = [{"timestamp": [5, None], "text": "end"}, {"timestamp": [1.5, 2], "text": "begin"}]
    path.write_text(json.dumps(entries))
    assert read_json(path, shift=1.0, duration=8.0) == [Subtitle(0.5, 1.0, "begin"), Subtitle(4.0, 8.0, "end")]
    for broken in (
        "nonsense",
        '{"a": 1}',
        '[{"timestamp": [1], "text": "x"}]',
        '[{"start": "x", "end": "y", "line": ""}]',
    ):
        path.write_text(broken)
        with pytest.raises(ValueError, match="a.json: no subtitles as LongVideoBench has them"):
            read_json(path)


def test_on_screen_keeps_the_order_and_names_each_once():
    spoken = [
        Subtitle(0, 2, "a"),
        Subtitle(2, 4, "b"),
        Subtitle(3, 9, "c"),
        Subtitle(20, 21, "d"),
        Subtitle(30, 31, "a"),
    ]
    assert on_screen(spoken, [8.0, 2.0, 3.5, 1.0, 30.0]) == ["a", "b", "c", "a"]
    assert on_screen(spoken, [4.0]) == ["c"], "the end is outside"
    assert on_screen(spoken, []) == []


def test_between_frames():
    """The reference's rule: behind the frames up to a subtitle's middle, and only where a frame lies within it."""
    times = [0.0, 2.0, 4.0, 6.0]
    assert between_frames([], times) == [0, 1, 2, 3]
    assert between_frames([Subtitle(1.5, 3.5, "x")], times) == [0, 1, "x", 2, 3]
    assert between_frames([Subtitle(2.2, 3.8, "no frame in it")], times) == [0, 1, 2, 3]
    # shorter than a second: as if it lasted one, about its middle
    assert between_frames([Subtitle(2.2, 2.4, "short")], times) == [0, 1, "short", 2, 3]
    assert between_frames([Subtitle(-9, -5, "before"), Subtitle(5.9, 99.0, "long")], times) == [0, 1, 2, 3, "long"]
    assert between_frames([Subtitle(1.5, 3.5, "x")], []) == []
