"""From physical values to 8-bit grey: window presets, a file's own windows and tables, the standard's formulas.

Values are rescaled (Hounsfield units) before they come here: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.
"""

from dataclasses import dataclass

import numpy as np

from vlm.errors import SampleError
from vlm.media.deidentify import number, numbers, text, value

# CT presets in HU: (center, width)
PRESETS = {
    "lung": (-600.0, 1500.0),
    "soft tissue": (50.0, 400.0),
    "brain": (40.0, 80.0),
    "bone": (400.0, 1800.0),
}
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
MAX_TABLE = 65_536


@dataclass(frozen=True)
class Window:
    """A window in physical units; `function` is the standard's VOI LUT function."""

    center: float
    width: float
    function: str = "LINEAR"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Physical values of any shape -> uint8 grey of that shape; NaN is black."""
        values = values.astype(np.float32, copy=False)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                scaled = 1 / (1 + np.exp(-4 * (values - self.center) / self.width))
        elif self.function == "LINEAR_EXACT":
            scaled = (values - self.center) / self.width + 0.5
        else:
            scaled = (values - (self.center - 0.5)) / max(self.width - 1, 1e-6) + 0.5
        return (np.clip(np.nan_to_num(scaled), 0, 1) * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class VoiTable:
    """A VOI LUT: `table[clip(value - first)]`, its output of `bits` bits."""

    first: float
    table: np.ndarray
    bits: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Physical values of any shape -> uint8 grey of that shape."""
        index = np.clip(np.nan_to_num(values) - self.first, 0, len(self.table) - 1).astype(np.int64)
        return (self.table[index].astype(np.float32) * (255 / (2**self.bits - 1))).round().clip(0, 255).astype(np.uint8)


def preset(name: str, modality: str, path=None) -> Window:
    """A named window; presets are in HU, so for CT alone.

    Raises SampleError: unknown_window, window_without_units.
    """
    plain = " ".join(str(name).lower().replace("_", " ").replace("-", " ").split())
    if plain not in PRESETS:
        message = f"window {name!r:.40} is not known; known are {', '.join(PRESETS)}, or (center, width)"
        raise SampleError(message, path=path, reason="unknown_window")
    if modality != "CT":
        what = modality or "an image that does not state its modality"
        message = f"window {plain!r} is in Hounsfield units, for CT: {what} has none; give (center, width)"
        raise SampleError(message, path=path, reason="window_without_units")
    return Window(*PRESETS[plain])


def given_window(window, modality: str, path=None) -> Window | None:
    """What a user gave (None, a preset's name, (center, width)) -> a window, or None.

    Raises SampleError: bad_window, and those of `preset`.
    """
    if window is None or isinstance(window, Window):
        return window
    if isinstance(window, str):
        return preset(window, modality, path)
    try:
        center, width = (float(part) for part in window)
    except (TypeError, ValueError):
        center = width = float("nan")
    if not (abs(center) < 1e12 and 0 < width < 1e12):
        message = f"window {window!r:.40} is no (center, width) with a width above 0"
        raise SampleError(message, path=path, reason="bad_window")
    return Window(center, width)


def file_windows(places: list) -> list[Window]:
    """The windows of a DICOM file, of the first place (frame, shared groups, top) that has usable ones."""
    for place in places:
        inner = value(place, "FrameVOILUTSequence")
        source = inner[0] if inner else place
        centers, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
        function = text(source, "VOILUTFunction").upper()
        function = function if function in FUNCTIONS else "LINEAR"
        least = 1 if function == "LINEAR" else 1e-12
        found = [Window(c, w, function) for c, w in zip(centers or (), widths or ()) if w >= least]
        if found:
            return found
    return []


def file_table(places: list) -> VoiTable | None:
    """The first VOI LUT of a DICOM file, or None. A damaged one counts as none."""
    for place in places:
        inner = value(place, "FrameVOILUTSequence")
        items = value(inner[0] if inner else place, "VOILUTSequence")
        if items:
            return _table(items[0])
    return None


def _table(item) -> VoiTable | None:
    described = numbers(item, "LUTDescriptor", 3)
    data = value(item, "LUTData")
    if described is None or data is None:
        return None
    count, first, bits = (int(part) for part in described)
    count = count or MAX_TABLE
    if isinstance(data, (bytes, bytearray)):
        data = np.frombuffer(bytes(data), np.uint8 if len(data) < 2 * count else "<u2")
    entries = np.asarray(data)
    if entries.dtype.kind not in "iu" or entries.ndim != 1 or not 1 <= bits <= 16 or not 0 < count <= len(entries):
        return None
    return VoiTable(first, entries[:count].astype(np.int64) & 0xFFFF, bits)


def full_range(values: np.ndarray, padding: float | None = None) -> Window:
    """The window from the smallest to the largest finite value, padding left out."""
    shown = values[np.isfinite(values)]
    if padding is not None and (shown != padding).any():
        shown = shown[shown != padding]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    return Window((low + high + 1) / 2, high - low + 1)


def percentile_range(values: np.ndarray, low: float = 0.5, high: float = 99.5) -> Window:
    """A window over the bulk of the values above the background (the smallest value): for units that mean nothing."""
    step = max(1, values.size // 1_000_000)
    shown = values.reshape(-1)[::step] if values.flags.contiguous else values.ravel()[::step]
    shown = shown[np.isfinite(shown)]
    inside = shown[shown > shown.min()] if shown.size else shown
    if not inside.size:
        return full_range(values)
    a, b = (float(part) for part in np.percentile(inside, (low, high)))
    return Window((a + b) / 2, max(b - a, 1e-6), "LINEAR_EXACT")


def padding_value(data, slope: float, intercept: float) -> float | None:
    """PixelPaddingValue in physical units, or None."""
    stored = number(data, "PixelPaddingValue")
    return None if stored is None else stored * slope + intercept
