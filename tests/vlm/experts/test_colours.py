"""The colour of a label: fixed, nameable, and different for labels that are seen together."""

import itertools

import pytest
from PIL import ImageColor

from vlm.experts.colours import FIXED, NUMBERED, OTHERS, colour_name, colour_rgb


def test_every_colour_is_one_that_pillow_knows():
    assert all(len(ImageColor.getrgb(name)) == 3 for name in (*FIXED.values(), *NUMBERED, *OTHERS))
    assert len(set(OTHERS)) == len(OTHERS) and len(set(NUMBERED)) == len(NUMBERED)


@pytest.mark.parametrize("name", ["Liver", "LIVER ", " liver"])
def test_spelling_does_not_count(name):
    assert colour_name(name) == "red" and colour_rgb(name) == (255, 0, 0)
    assert colour_name("left_lung") == colour_name("left-lung") == colour_name("Left Lung") == "cyan"


def test_numbered_labels_differ_from_their_neighbours():
    colours = [colour_rgb(f"lesion {number}") for number in range(1, 17)]
    apart = [sum(abs(a - b) for a, b in zip(one, two)) for one, two in itertools.combinations(colours, 2)]
    assert min(apart) > 60


def test_any_name_has_a_colour():
    names = ["", "é", "vertebrae L1", "7", "x" * 10_000, "left adrenal gland"]
    assert [colour_name(name) for name in names] == [colour_name(name) for name in names]
    assert len({colour_name(name) for name in ("inferior vena cava", "prostate", "left adrenal gland")}) == 3
