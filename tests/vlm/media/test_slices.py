"""Slices, neighbours and montages as radiologists see them; how many fit into a budget of tokens."""

import numpy as np
import pytest

from vlm.errors import SampleError
from vlm.media.slice_budget import MIN_SIZE, plan_slices, token_counter
from vlm.media.slices import (
    choose_slices,
    choose_window,
    montage,
    montage_columns,
    neighbour_image,
    shown_size,
    slice_image,
    take_slice,
)
from vlm.media.volume import Volume
from vlm.media.volume_pictures import volume_pictures
from vlm.media.windows import Window

WIDE = Window(127.5, 255, "LINEAR_EXACT")


def volume(shape=(20, 30, 10), spacing=(1, 1, 1), modality="MR") -> Volume:
    return Volume(np.zeros(shape, np.float32), np.diag([*map(float, spacing), 1.0]), modality)


def marked(*corner: int) -> Volume:
    """One bright voxel."""
    made = volume()
    made.array[corner] = 255
    return made


@pytest.mark.parametrize(
    ("axis", "index", "voxel", "row", "column"),
    [
        ("axial", 4, (19, 29, 4), "top", "left"),  # right front: right on the left, front at the top
        ("axial", 4, (0, 0, 4), "bottom", "right"),
        ("coronal", 7, (19, 7, 9), "top", "left"),  # right, head
        ("coronal", 7, (0, 7, 0), "bottom", "right"),
        ("sagittal", 3, (3, 29, 9), "top", "left"),  # front, head
        ("sagittal", 3, (3, 0, 0), "bottom", "right"),
    ],
)
def test_where_the_patient_is_in_the_picture(axis, index, voxel, row, column):
    shown = take_slice(marked(*voxel), index, axis).array
    height, width = shown.shape
    assert shown[0 if row == "top" else height - 1, 0 if column == "left" else width - 1] == 255 and shown.sum() == 255


def test_pixels_become_square():
    thick = volume(spacing=(0.5, 0.5, 4))
    assert slice_image(thick, 0, "axial", WIDE).size == (20, 30) == shown_size(thick, "axial")[::-1]
    assert slice_image(thick, 0, "coronal", WIDE).size == (20, 80), "10 slices of 4 mm beside 20 voxels of 0.5 mm"
    assert shown_size(thick, "coronal") == (80, 20) and shown_size(thick, "coronal", 40) == (40, 10)


def test_inverted_volumes_are_turned():
    made = marked(0, 0, 0)
    plain = np.asarray(slice_image(made, 0, "axial", WIDE))
    made.is_inverted = True
    assert np.array_equal(np.asarray(slice_image(made, 0, "axial", WIDE)), 255 - plain)


def test_which_slices():
    made = volume()
    assert choose_slices(made, 1) == [5] and choose_slices(made, 5) == [1, 3, 5, 7, 9]
    assert choose_slices(made, 99) == list(range(10))
    made.array[5, 5, 2:6] = 1  # the others show nothing
    assert choose_slices(made, 2) == [3, 5] and choose_slices(made, 9) == [2, 3, 4, 5]
    mask = np.zeros(made.array.shape, int)
    mask[:5, 0, 7] = mask[:3, 0, 1] = mask[:4, 0, 8] = 1
    assert choose_slices(made, 1, mask=mask) == [7] and choose_slices(made, 9, mask=mask) == [1, 7, 8]
    for bad in (mask * 0, mask[:3]):
        with pytest.raises(SampleError) as caught:
            choose_slices(made, 1, mask=bad)
        assert caught.value.reason == "bad_mask"


def test_neighbours_are_the_colours():
    made = volume()
    for index, value in ((3, 10), (4, 20), (5, 30)):
        made.array[:, :, index] = value
    assert neighbour_image(made, 4, "axial", WIDE).getpixel((0, 0)) == (10, 20, 30)
    made.array[:, :, 0] = 7
    assert neighbour_image(made, 0, "axial", WIDE).getpixel((0, 0)) == (7, 7, 0)
    assert neighbour_image(made, 5, "axial", WIDE, step=2).getpixel((0, 0)) == (10, 30, 0)


def test_montage_in_reading_order():
    made = volume()
    made.array[:] = np.arange(10) * 20
    pictures = [slice_image(made, index, "axial", WIDE) for index in range(6)]
    sheet = montage(pictures, columns=3)
    assert sheet.size == (60, 60)
    assert [sheet.getpixel((x, y))[0] for y in (5, 35) for x in (5, 25, 45)] == [0, 20, 40, 60, 80, 100]
    assert montage_columns(9, 10, 10) == 3 and montage_columns(4, 100, 25) == 4
    with pytest.raises(SampleError):
        montage([pictures[0], pictures[1].resize((3, 3))])


def test_window_of_a_volume():
    assert choose_window(volume(modality="CT")) == (Window(50, 400), "soft tissue window")
    assert choose_window(volume(modality="CT"), "lung") == (Window(-600, 1500), "lung window")
    own = volume(modality="CT")
    own.window = Window(40, 80)
    assert choose_window(own) == (Window(40, 80), "40/80 window")
    assert choose_window(volume())[1] == "full range"


def test_budget_shrinks_first_and_then_leaves_out():
    made = volume((512, 512, 40))
    counter = token_counter({"mode": "dynamic", "min_num_patches": 16}, {"type": "pixel_shuffle", "downsample": 2})
    whole = plan_slices(made, 8, num_tokens=counter)
    assert whole.size is None and whole.count == 8 and whole.tokens == 8 * counter(512, 512)
    fits = plan_slices(made, 8, max_tokens=whole.tokens // 2, num_tokens=counter)
    assert fits.count == 8 and MIN_SIZE <= fits.size < 512 and fits.tokens <= whole.tokens // 2
    larger = fits.size + 32
    assert larger >= 512 or 8 * counter(larger, larger) > whole.tokens // 2, "the largest that fits"
    few = plan_slices(made, 8, max_tokens=3 * counter(MIN_SIZE, MIN_SIZE), num_tokens=counter)
    assert few.count == 3 and few.size == MIN_SIZE
    sheet = plan_slices(made, 9, layout="montage", max_tokens=400, num_tokens=counter)
    assert sheet.pictures == 1 and sheet.tokens <= 400 and sheet.count >= 4
    for options, reason in (({"max_tokens": 3}, "over_budget"), ({"layout": "film"}, "bad_layout")):
        with pytest.raises(SampleError) as caught:
            plan_slices(made, 8, num_tokens=counter, **options)
        assert caught.value.reason == reason
    with pytest.raises(SampleError) as caught:
        plan_slices(made, 8, max_tokens=100)
    assert caught.value.reason == "no_counter"


def test_pictures_are_what_the_plan_says():
    made = volume((512, 512, 40), (0.7, 0.7, 5), "CT")
    counter = token_counter({"mode": "dynamic", "min_num_patches": 16}, {"type": "pixel_shuffle", "downsample": 2})
    for layout in ("slices", "neighbours", "montage"):
        words, pictures = volume_pictures(made, 6, layout=layout, max_tokens=700, num_tokens=counter)
        assert sum(counter(picture.height, picture.width) for _, picture in pictures) <= 700
        assert words == "CT volume of 40 axial slices, 5 mm apart, soft tissue window."
    words, pictures = volume_pictures(made, [3, 40], size=64)
    assert [label for label, _ in pictures] == ["Slice 3 of 40", "Slice 40 of 40"] and pictures[0][1].size == (64, 64)
    for slices, reason in (([0], "bad_slice"), ([41], "bad_slice"), ("all", "bad_count"), (0, "bad_count")):
        with pytest.raises(SampleError) as caught:
            volume_pictures(made, slices)
        assert caught.value.reason == reason
