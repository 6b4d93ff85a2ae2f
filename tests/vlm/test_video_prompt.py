"""The words around the frames of a clip: those of transformers' processor, whatever is grouped."""

from types import SimpleNamespace

import pytest

from vlm.video_prompt import constant_rate, prompt_times, video_text

CHUNK = "<img><image></img>"


def reference_words(indices: list[int], rate: float, depth: int) -> str:
    """What `replace_video_token` of transformers' Omni processor writes; skips where transformers has none."""
    try:
        from transformers.models.nemotron_h_omni import processing_nemotron_h_omni as module
    except ImportError:
        pytest.skip("optional package absent: transformers with nemotron_h_omni")
    words = SimpleNamespace(
        video_temporal_patch_dim=depth, image_start_token="<img>", image_token="<image>", image_end_token="</img>"
    )
    metadata = SimpleNamespace(fps=rate, frames_indices=indices)
    write = module.NemotronH_Omni_Reasoning_V3Processor.replace_video_token
    return write(words, {"num_tokens": [1]}, 0, num_frames=len(indices), video_metadata=metadata)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("rate", [1, 12.5, 24000 / 1001, 24, 25, 30000 / 1001, 30, 59.94, 60, 120, 7.3])
def test_words_and_times_are_those_of_the_reference(rate: float, depth: int):
    indices = [0, 1, 7, 30, 31, 999, 54_000]
    times = [i / rate for i in indices]
    assert constant_rate(times, rate) == rate
    ours = video_text(len(indices), prompt_times(times, rate), CHUNK, {"temporal_patch_size": depth})
    assert ours == reference_words(indices, rate, depth)


def test_times_by_hand():
    assert prompt_times([0.0, 1.0, 2.0], 30) == [0.0, 0.99, 1.98]
    assert prompt_times([0.0, 0.5, 1.0], 25) == pytest.approx([0.0, 0.48, 1.0])  # 0.5 s is no frame of 25 a second
    assert prompt_times([0.0, 0.04, 1.0], 25) == [0.0, 0.04, 1.0]
    assert prompt_times([0.0, 0.123, 5.5], None) == [0.0, 0.123, 5.5]


def test_which_rates_are_constant():
    assert constant_rate([0.0, 1 / 30, 1.0], 30) == 30
    assert constant_rate([0.0, 0.033, 0.067, 1.0], 30) == 30, "containers round to milliseconds"
    assert constant_rate([0.0, 0.045, 1.0], 30) is None, "a third of a frame off"
    assert constant_rate([0.0, 1.0, 1.003], 30) is None, "two frames at one place"
    assert constant_rate([0.0, 1.0], 2000) is None, "int(1000 / rate) is 0: every frame would be at 0.00"
    assert constant_rate([0.0], None) is None


@pytest.mark.parametrize(
    ("depth", "pool", "groups"), [(1, 2, 3), (2, 1, 3), (2, 2, 2), (1, 4, 2), (2, 4, 1), (1, 1, 5)]
)
def test_pooled_frames_share_one_label(depth: int, pool: int, groups: int):
    times = [0.0, 0.5, 1.0, 1.5, 2.0]
    text = video_text(5, times, "C", {"temporal_patch_size": depth, "temporal_pool": pool})
    lines = text.split("\n")
    assert len(lines) == groups and all(line.endswith(": C") for line in lines)
    assert text.count("C") == groups
    for number, time in enumerate(times, 1):
        group, place = divmod(number - 1, depth * pool)
        assert f"{'frame' if place else 'Frame'} {number} sampled at {time:.2f} seconds" in lines[group]
    bare = video_text(5, times, "C", {"temporal_patch_size": depth, "temporal_pool": pool, "frame_labels": False})
    assert bare == "C" * groups


def test_pooled_words_by_hand():
    text = video_text(3, [0.0, 0.5, 1.0], "C", {"temporal_pool": 2})
    assert text == (
        "Frame 1 sampled at 0.00 seconds and frame 2 sampled at 0.50 seconds: C\nFrame 3 sampled at 1.00 seconds: C"
    )
    assert video_text(4, None, "C", {"temporal_pool": 2, "temporal_patch_size": 2}) == (
        "Frame 1 and frame 2 and frame 3 and frame 4: C"
    )
