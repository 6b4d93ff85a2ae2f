"""The table of releases: figures, and which release a name means."""

import pytest

from encoders.versions import RELEASES, find_release, table_rows

# version -> patch, maximum, preferred, (trained with windows, global blocks, windowed blocks); NVlabs/RADIO's table
TABLE = {
    "radio_v2.5-b": (16, 2048, 768, (True, 4, None)),
    "radio_v2.5-l": (16, 2048, 768, (True, 4, None)),
    "radio_v2.5-h": (16, 2048, 768, (True, 4, None)),
    "radio_v2.5-h-norm": (16, 2048, 768, (True, 4, None)),
    "radio_v2.5-g": (14, 1792, 896, (True, 8, None)),
    "radio_v2.1": (16, 2048, 432, (True, None, 5)),
    "radio_v2": (16, 2048, 432, (True, None, 5)),
    "radio_v1": (14, 1050, 378, (True, 4, None)),
    "e-radio_v2": (16, 2048, 512, (False, None, None)),
    "c-radio_v2-g": (16, 2048, 768, (True, 8, None)),
    "c-radio_v2-vlm-h": (16, 2048, 768, (True, 8, None)),
    "c-radio_v3-b": (16, 2048, 512, (False, None, None)),
    "c-radio_v3-l": (16, 2048, 512, (False, None, None)),
    "c-radio_v3-h": (16, 2048, 512, (False, None, None)),
    "c-radio_v3-g": (16, 2048, 512, (False, None, None)),
    "c-radio_v4-so400m": (16, 2048, 512, (True, 4, None)),
    "c-radio_v4-h": (16, 2048, 512, (True, 4, None)),
}


@pytest.mark.parametrize("name", TABLE)
def test_figures(name):
    patch, largest, preferred, windows = TABLE[name]
    release = RELEASES[name]
    assert (release.patch_size, release.max_resolution, release.preferred_resolution) == (patch, largest, preferred)
    assert (release.vitdet, release.vitdet_num_global, release.vitdet_num_windowed) == windows
    step = release.patch_size
    assert release.max_resolution % step == 0 and release.preferred_resolution % step == 0


def test_every_release_is_known_and_the_unsupported_say_why():
    assert set(TABLE) | {"c-radio_v4-1d-h"} == set(RELEASES)
    unsupported = {name for name, release in RELEASES.items() if release.unsupported}
    assert unsupported == {"e-radio_v2", "c-radio_v4-1d-h"}


@pytest.mark.parametrize(
    ("said", "release"),
    [
        ("c-radio_v4-h", "c-radio_v4-h"),
        ("C-RADIO_v4-H", "c-radio_v4-h"),
        ("nvidia/C-RADIOv4-H", "c-radio_v4-h"),
        ("nvidia/C-RADIOv4-SO400M", "c-radio_v4-so400m"),
        ("nvidia/C-RADIOv3-g", "c-radio_v3-g"),
        ("nvidia/C-RADIOv2-VLM-H", "c-radio_v2-vlm-h"),
        ("nvidia/C-RADIOv4-1D-H", "c-radio_v4-1d-h"),
        ("/models/c-radio_v4-h_half.pth.tar", "c-radio_v4-h"),
        ("c-radio_v3-b_half.pth.tar", "c-radio_v3-b"),
        ("radio_v2.5-h-norm", "radio_v2.5-h-norm"),
        ("radio-v2.5-h-norm_half.pth.tar", "radio_v2.5-h-norm"),
        ("radio-v2.5-h_half.pth.tar", "radio_v2.5-h"),
        ("radio-v2.5-b_half.pth.tar", "radio_v2.5-b"),
        ("radio-v2.5-g_half.pth.tar", "radio_v2.5-g"),
        ("radio_v2.1", "radio_v2.1"),
        ("radio_v2", "radio_v2"),
        ("e-radio_v2", "e-radio_v2"),
        ("radio_v3", None),
        ("my-vit", None),
        ("some/folder", None),
        ("", None),
        (None, None),
        (".", None),
    ],
)
def test_names(said, release):
    assert find_release(said) == release


def test_the_first_name_that_tells_wins():
    assert find_release(None, "runs/my-encoder", "radio_v2.1", "c-radio_v4-h") == "radio_v2.1"


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_finds_itself_by_name_id_and_file(name):
    release = RELEASES[name]
    for said in (name, release.hub_id, release.file):
        assert said is None or find_release(said) == name


def test_table_rows():
    rows = {row.split("|")[1].strip(): row for row in table_rows()}
    assert set(rows) == set(RELEASES)
    assert "5 windowed blocks" in rows["radio_v2.1"] and "4 global blocks" in rows["c-radio_v4-so400m"]
    assert "not trained with them" in rows["c-radio_v3-h"] and "not supported yet" in rows["e-radio_v2"]
