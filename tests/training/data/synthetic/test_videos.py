"""The video corpus: readable files, same seed same clips, disjoint splits, no answer without the order of frames."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from training.data.synthetic import videos
from training.data.synthetic.clips import COLOURS, DIRECTIONS, SHAPES, Actor, cell_labels, draw_clip
from training.data.synthetic.split_hash import split_of

av = pytest.importorskip("av", reason="optional package absent: av")


def rows_of(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("videos")
    videos.write(out, "test", 5, 40)
    return out


def test_the_folder_is_complete(corpus):
    header = json.loads((corpus / "dataset.json").read_text())
    assert header == {"name": "synthetic_videos", "task": "videos", "split": "test", "seed": 5, "n": 40}
    rows = rows_of(corpus)
    assert len({row["id"] for row in rows}) == 40
    kinds = Counter(row["meta"]["kind"] for row in rows)
    assert kinds == {"direction": 20, "order": 10, "count": 10}
    for row in rows:
        user, assistant = row["messages"]
        assert [item["type"] for item in user["content"]] == ["video", "text"]
        assert [assistant["content"][0]["text"]] == row["meta"]["answers"]
        clip = decode(corpus / user["content"][0]["video"])
        assert clip.shape == (8, 64, 64, 3)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 200])
def test_at_least_half_of_the_questions_ask_for_the_direction(n):
    assert videos.kinds_of(n).count("direction") >= n / 2


def test_training_records_ask_more_for_the_direction(tmp_path):
    videos.write(tmp_path / "a", "train", 0, 6)
    videos.write(tmp_path / "b", "train", 0, 4, kinds="count,order")
    assert [row["meta"]["kind"] for row in rows_of(tmp_path / "a")].count("direction") == 4
    assert [row["meta"]["kind"] for row in rows_of(tmp_path / "b")] == ["count", "order"] * 2


def test_same_seed_same_clips(corpus, tmp_path):
    videos.write(tmp_path / "again", "test", 5, 40)
    videos.write(tmp_path / "other", "test", 6, 40)
    assert rows_of(tmp_path / "again") == rows_of(corpus) != rows_of(tmp_path / "other")
    for name in ("000000", "000017"):
        assert np.array_equal(decode(corpus / f"videos/{name}.mp4"), decode(tmp_path / f"again/videos/{name}.mp4"))


def test_contents_of_the_splits_are_disjoint():
    contents = {split: set() for split in ("train", "val", "test")}
    rng = random.Random(0)
    for kind in ("direction", "order", "count"):
        for _ in range(1500):
            content = videos.content_of(kind, *videos.KINDS[kind](rng, 64, 8))
            contents[split_of(repr(content))].add(content)
    assert all(contents.values())
    assert not contents["train"] & contents["val"] and not (contents["train"] | contents["val"]) & contents["test"]


def test_encoding_keeps_the_picture(tmp_path):
    from training.data.synthetic.clips import write_mp4

    clip = draw_clip([Actor("disc", "red", 20, 30, 8, (4, 0))], 8, 64, 40)
    write_mp4(tmp_path / "a.mp4", clip, 4)
    assert np.abs(decode(tmp_path / "a.mp4").astype(int) - clip).mean() < 2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_moves_on_a_torus(shape):
    clip = draw_clip([Actor(shape, "white", 60, 5, 8, (6, 0))], 8, 64, 0)
    for t in range(8):
        assert np.array_equal(clip[t], np.roll(clip[0], 6 * t, axis=1))


def test_neither_a_frame_nor_the_set_of_frames_tells_the_direction():
    """Every frame's place is uniform whatever the direction; a clip run backwards is a clip of the other direction."""
    rng = random.Random(1)
    first = {name: Counter() for name in DIRECTIONS}
    for _ in range(8000):
        (actor,), answer = videos.KINDS["direction"](rng, 64, 8)
        for t in (0, 6):
            x, y = ((p + v * t) % 64 for p, v in zip((actor.x, actor.y), actor.velocity))
            first[answer][(t, int(x) // 16, int(y) // 16)] += 1
    for counts in first.values():
        total = sum(counts.values()) / 32
        assert len(counts) == 32 and all(abs(count / total - 1) < 0.35 for count in counts.values())
    forward = draw_clip([Actor("disc", "red", 10, 20, 8, (6, 0))], 8, 64, 0)
    backward = draw_clip([Actor("disc", "red", (10 + 42) % 64, 20, 8, (-6, 0))], 8, 64, 0)
    assert np.array_equal(forward[::-1], backward)


def test_every_second_frame_sees_both_objects_of_an_order_question():
    rng = random.Random(2)
    for _ in range(200):
        actors, answer = videos.KINDS["order"](rng, 64, 8)
        assert answer == actors[0].colour != actors[1].colour
        assert actors[0].last == actors[1].first and 2 <= actors[0].last <= 6 and actors[0].last % 2 == 0


def test_count_is_of_the_moving_shapes():
    rng = random.Random(3)
    seen = set()
    for _ in range(200):
        actors, answer = videos.KINDS["count"](rng, 64, 8)
        assert sum(actor.velocity != (0, 0) for actor in actors) == int(answer)
        seen.add((answer, len(actors)))
        assert all(actor.colour in COLOURS for actor in actors)
    assert {answer for answer, _ in seen} == {"1", "2", "3"} and len(seen) > 6, "shapes alone do not give the count"


def test_cell_labels_name_what_moves_where():
    actors = [
        Actor("disc", "red", 10, 20, 8, (6, 0)),
        Actor("ring", "blue", 40, 50, 8),
        Actor("disc", "pink", 50, 5, 8, first=4),
    ]
    colours, motions = cell_labels(actors, times=[0, 4], size=64, cell=32)
    names, kinds = ["none", *COLOURS], ["none", "still", *DIRECTIONS]
    assert [names[i] for i in colours[0]] == ["red", "none", "none", "blue"]
    assert [kinds[i] for i in motions[0]] == ["right", "none", "none", "still"]
    assert [names[i] for i in colours[1]] == ["none", "pink", "none", "blue"]  # the disc has moved on and is hidden
    assert colours.shape == motions.shape == (2, 4)


def test_bad_options_are_errors(tmp_path):
    with pytest.raises(ValueError, match="frames must be at least 4"):
        videos.write(tmp_path, "test", 0, 1, frames=2)
    with pytest.raises(ValueError, match="split"):
        videos.write(tmp_path, "exam", 0, 1)
    with pytest.raises(ValueError, match="unknown kind"):
        videos.write(tmp_path, "test", 0, 1, kinds="speed")
