"""Damaged copies of files, by seed: flipped bytes, cut ends, edited headers; and whether a reader survives one.

What is wanted of a reader: it opens the file, or says in a SampleError why not; soon, and in little memory.
"""

import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vlm.errors import SampleError

KINDS = ("flip", "flip header", "cut", "grow", "zero", "swap", "value")
SIZES = (0, 1, 2, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutate(data: bytes, seed: int) -> tuple[str, bytes]:
    """(kind, a damaged copy); the same for the same seed."""
    chance = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    out = bytearray(data)
    head = min(len(out), 2048)
    if kind == "flip":
        for _ in range(chance.randint(1, 40)):
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    elif kind == "flip header":
        for _ in range(chance.randint(1, 12)):
            out[chance.randrange(head)] = chance.randrange(256)
    elif kind == "cut":
        del out[chance.randrange(len(out)) :]
    elif kind == "grow":  # lengths and sizes in the header become silly ones
        for _ in range(chance.randint(1, 4)):
            width = chance.choice((2, 4))
            place = chance.randrange(max(1, head - width))
            out[place : place + width] = chance.choice(SIZES).to_bytes(4, "little")[:width]
    elif kind == "zero":
        start = chance.randrange(len(out))
        stop = min(len(out), start + chance.randint(1, 512))
        out[start:stop] = bytes(stop - start)
    elif kind == "value":  # a value of the image's description in DICOM (groups 0018, 0020, 0028), or any in the header
        places = [i for group in (b"\x28\0", b"\x20\0", b"\x18\0") for i in _places(data, group)] or [0]
        for _ in range(chance.randint(1, 3)):
            place = min(chance.choice(places) + 8 if len(places) > 1 else chance.randrange(head), len(out) - 8)
            number = chance.choice((*SIZES, chance.randrange(2**31))).to_bytes(4, "little")
            written = chance.choice((number[:2], number, b"-1", b"1e99", b"nan ", b"0 ", b"-0.00001"))
            out[place : place + len(written)] = written
    else:  # two stretches of the header change places
        size = chance.randint(1, 64)
        one, two = sorted(chance.randrange(max(1, head - size)) for _ in range(2))
        out[one : one + size], out[two : two + size] = out[two : two + size], out[one : one + size]
    return kind, bytes(out)


def _places(data: bytes, pattern: bytes) -> list[int]:
    """Where `pattern` stands in the first 8 kB behind the preamble, at even places."""
    return [i for i in range(132, min(len(data), 8192), 2) if data[i : i + 2] == pattern]


def peak_mb() -> float:
    """The most memory this process has held so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start with what the parent process held
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class Survival:
    """What became of the files: opened, refused (by reason), crashed (name, error, words), slowest, memory grown."""

    opened: int = 0
    refused: Counter = field(default_factory=Counter)
    crashed: list = field(default_factory=list)
    slowest: float = 0.0
    grown_mb: float = 0.0


def survive(cases, readers: Callable[[Path], None], folder: Path) -> Survival:
    """Reads every (name, data) of `cases`; `readers` opens one file. The folder holds one file at a time."""
    found = Survival()
    before = peak_mb()
    for name, data in cases:
        path = folder / name
        path.write_bytes(data)
        started = time.monotonic()
        try:
            readers(path)
            found.opened += 1
        except SampleError as error:
            found.refused[error.reason] += 1
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            found.crashed.append((name, type(error).__name__, str(error)[:200]))
        found.slowest = max(found.slowest, time.monotonic() - started)
        path.unlink()
    found.grown_mb = peak_mb() - before
    return found


def read_medical(path: Path) -> None:
    """A file through every reader it may meet: as a picture and as a volume; SampleError when the first refuses."""
    from vlm.media import load_image, read_volume
    from vlm.media.slices import slice_image

    if path.name.endswith((".nii", ".nii.gz")):
        slice_image(read_volume(path, modality="MR", frame=0), 0)
        return
    try:
        load_image(path)
    finally:
        try:
            slice_image(read_volume(path, modality=None), 0)
        except SampleError:
            pass  # most pictures are no volumes
