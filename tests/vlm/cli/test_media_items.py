"""Content items of files: what a user says of a video goes before what the model's processor says."""

from types import SimpleNamespace

import pytest

from vlm.cli.media_items import media_item
from vlm.prompt_media import MAX_FRAMES


@pytest.mark.parametrize(
    ("defaults", "said", "expected"),
    [
        ({"max_frames": 8, "fps": 2.0}, {"fps": 1.0}, {"max_frames": 8, "fps": 1.0}),
        ({"max_frames": None, "fps": 2.0}, {"start": 1.0}, {"max_frames": MAX_FRAMES, "fps": 2.0, "start": 1.0}),
        (None, {"max_frames": 4}, {"max_frames": 4}),
    ],
)
def test_options_of_a_video(tmp_path, monkeypatch, defaults, said, expected):
    path, seen = tmp_path / "v.mp4", {}
    path.touch()

    def load(path, **options):
        seen.update(options)
        return SimpleNamespace(frames="frames", timestamps=[0.0])

    monkeypatch.setattr("vlm.media.load_video", load)
    item = media_item(path, "video", defaults, end=None, **said)
    assert item["video"] == "frames" and seen == expected
