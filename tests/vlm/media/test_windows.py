"""Windows: presets after rescale, the standard's functions and tables against pydicom, the file's own choice."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.medical_files import new_dataset, save
from vlm.errors import SampleError
from vlm.media.dicom import read_dicom
from vlm.media.windows import PRESETS, Window, file_table, file_windows, full_range, given_window, percentile_range

pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")
RAMP = (np.arange(64, dtype=np.int16).reshape(8, 8) * 60).astype(np.int16)


def write(path: Path, pixels=RAMP, **tags) -> Path:
    return save(new_dataset(path, pixels, **tags), path)


def grey(path: Path, **options) -> np.ndarray:
    return np.asarray(read_dicom(path, **options).image)[..., 0]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_work_on_hounsfield_units(tmp_path: Path, name: str):
    path = write(tmp_path / "x.dcm", RescaleSlope=1, RescaleIntercept=-1024)
    center, width = PRESETS[name]
    hu = RAMP.astype(float) - 1024
    shown = grey(path, window=name)
    assert read_dicom(path, window=name).window == (center, width)
    assert (shown[hu <= center - width / 2] == 0).all() and (shown[hu >= center + width / 2] == 255).all()
    without = grey(write(tmp_path / "y.dcm"), window=name)
    assert not np.array_equal(shown, without), "a window before the rescale shows something else"
    assert np.array_equal(grey(path, window=name.replace(" ", "_").upper()), shown)


def test_presets_are_for_ct_alone(tmp_path: Path):
    path = write(tmp_path / "x.dcm", Modality="MR")
    for window, reason in (("lung", "window_without_units"), ("liver", "unknown_window"), ((1, 0), "bad_window")):
        with pytest.raises(SampleError) as caught:
            read_dicom(path, window=window)
        assert caught.value.reason == reason
    assert given_window((40, 80), "MR") == Window(40, 80) and given_window(None, "") is None


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_functions_agree_with_pydicom(tmp_path: Path, function: str):
    from pydicom.pixels import apply_windowing

    path = write(tmp_path / "x.dcm", WindowCenter=1500, WindowWidth=1000, VOILUTFunction=function)
    data = pydicom.dcmread(path)
    theirs = apply_windowing(data.pixel_array, data)
    low, high = -32768, 32767
    assert np.abs(grey(path) - (theirs - low) / (high - low) * 255).max() <= 1


def lut(first: int = 0, count: int = 256, bits: int = 16):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.add_new((0x0028, 0x3002), "SS" if first < 0 else "US", [count, first, bits])
    table = (np.linspace(0, 1, count) ** 2 * (2**bits - 1)).astype("<u2")
    item.add_new((0x0028, 0x3006), "OW", table.tobytes())
    return Sequence([item])


def test_voi_table_agrees_with_pydicom(tmp_path: Path):
    from pydicom.pixels import apply_voi

    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    path = write(tmp_path / "x.dcm", pixels, VOILUTSequence=lut(10))
    scan = read_dicom(path)
    data = pydicom.dcmread(path)
    theirs = apply_voi(data.pixel_array, data).astype(float) / 65535 * 255
    assert np.abs(np.asarray(scan.image)[..., 0] - theirs).max() <= 0.51 and scan.window is None
    windowed = write(tmp_path / "y.dcm", pixels, VOILUTSequence=lut(10), WindowCenter=100, WindowWidth=50)
    assert read_dicom(windowed).window == (100, 50)
    data.VOILUTSequence[0].LUTData = b"\0"
    assert file_table([data]) is None, "a damaged table is none"


def test_several_windows_are_chosen_by_number(tmp_path: Path):
    path = write(tmp_path / "x.dcm", WindowCenter=[40, 600], WindowWidth=[80, 1500])
    assert [window.width for window in file_windows([pydicom.dcmread(path)])] == [80, 1500]
    assert read_dicom(path).window == (40, 80) and read_dicom(path, window=1).window == (600, 1500)
    with pytest.raises(SampleError, match="window 2 is not in a file of 2 windows"):
        read_dicom(path, window=2)


def test_padding_does_not_stretch_the_range(tmp_path: Path):
    pixels = RAMP.copy()
    pixels[0, 0] = -32000
    padded = write(tmp_path / "x.dcm", pixels, PixelPaddingValue=-32000)
    assert read_dicom(padded).window[1] == 64 * 60 - 60 - 60 + 1
    assert read_dicom(write(tmp_path / "y.dcm", pixels)).window[1] > 30000


def test_ranges():
    values = np.array([0.0] * 50 + list(range(1, 101)))
    window = percentile_range(values)
    assert window.apply(values).min() == 0 and window.apply(values).max() == 255 and 95 < window.width < 100
    assert full_range(np.array([np.nan, 1, 3])).width == 3 and full_range(np.array([np.nan])).width == 1
    assert Window(0, 10).apply(np.array([np.nan, np.inf, -np.inf])).tolist() == [0, 255, 0]
