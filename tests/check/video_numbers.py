"""The numbers sampling of long videos promises: its cost against decoding everything, the right frames, the real files.

The long video is made here: four groups of pictures are encoded and their packets repeated, so making it is quick and
each frame still shows its number. Sampling and decoding everything run in turns, medians count.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402
from tests.helpers.video_files import bars, numbers, repeat_packets, write_video  # noqa: E402
from vlm.media import load_video  # noqa: E402

COMMAND = "python tests/check/video_numbers.py"
RATE, GROUP, SEGMENTS, SECONDS, FRAMES = 30, 250, 4, 1800, 64
SIZE = (720, 1280)
TURNS = 2


def scene(number: int, height: int, width: int) -> np.ndarray:
    """Bars above, and below them a pattern that moves, so that decoding a frame is work."""
    picture = bars(number, height, width)
    row = ((np.arange(width) * 5 + number * 12) % 256).astype(np.uint8)
    waves = row[None] ^ ((np.arange(height // 2) * 3 + number * 6) % 256).astype(np.uint8)[:, None]
    picture[-(height // 2) :] = waves[..., None]
    return picture


def long_video(out: Path) -> Path:
    """30 minutes of 1280 x 720 pixels, H.264, a key frame every 250 frames."""
    options = {"preset": "ultrafast", "g": str(GROUP), "sc_threshold": "0", "crf": "30"}

    def segment(index: int) -> Path:
        return write_video(
            out / f"segment{index}.mp4",
            GROUP,
            rate=RATE,
            size=SIZE,
            options=options,
            picture=lambda i, h, w: scene(index * GROUP + i, h, w),
        )

    return repeat_packets([segment(k) for k in range(SEGMENTS)], out / "long.mp4", SECONDS * RATE // GROUP)


def shown(frames) -> list[int]:
    """The numbers in the upper half of the frames."""
    return numbers(frames[:, :, : SIZE[0] // 2])


def decode_all(path: Path) -> int:
    """Frames decoded by PyAV's own loop, without conversion."""
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in container.decode(video=0))


def timed(function) -> tuple[tuple[float, float], object]:
    """((seconds, seconds of processors), result)."""
    start, used = time.perf_counter(), time.process_time()
    result = function()
    return (time.perf_counter() - start, time.process_time() - used), result


def sampling_numbers(out: Path) -> list[Number]:
    """Cost and correctness of 64 frames of the long video."""
    out.mkdir(parents=True, exist_ok=True)
    path = long_video(out)
    whole, sampled, exactly = [], [], []
    for _ in range(TURNS):
        everything, count = timed(lambda: decode_all(path))
        assert count == SECONDS * RATE
        whole.append(everything)
        for _ in range(3):  # short, so it is what a busy machine disturbs
            seconds, clip = timed(lambda: load_video(path, max_frames=FRAMES))
            sampled.append(seconds)
        seconds, exact = timed(lambda: load_video(path, max_frames=FRAMES, exact=True))
        exactly.append(seconds)
    wall, processor = (
        [statistics.median(row[i] for row in rows) for rows in (sampled, exactly, whole)] for i in range(2)
    )
    path.unlink()  # 0.4 GB
    planned = [(i + 0.5) * SECONDS / FRAMES for i in range(FRAMES)]
    wrong = 0
    for found, within in ((clip, SECONDS / FRAMES / 4), (exact, 1 / RATE + 1e-3)):
        told = [round(t * RATE) % (GROUP * SEGMENTS) for t in found.times]
        near = [abs(a - b) <= within for a, b in zip(found.times, planned, strict=True)]
        wrong += sum(a != b or not c for a, b, c in zip(told, shown(found.frames), near, strict=True))
    name = f"video: {FRAMES} frames of 30 minutes of 720p"
    return [
        Number(f"{name}, time / decoding all", "<= 0.05", wall[0] / wall[2], COMMAND),
        Number(f"{name}, processor time / decoding all", "<= 0.05", processor[0] / processor[2], COMMAND),
        Number(f"{name}, exact frames, time / decoding all", "", wall[1] / wall[2], COMMAND),
        Number(f"{name}, wrong frames of {2 * FRAMES}", "<= 0", wrong, COMMAND),
        Number("video: seconds of decoding all 30 minutes", "", wall[2], COMMAND),
    ]


def real_numbers(folder: Path) -> list[Number]:
    """How many of the real videos give exactly the frames they have."""
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    right = 0
    for row in rows:
        # of the two streams of this file the larger is read, the label counts the other
        expected = 390 if row["video"] == "torchcodec_nasa_13013.mp4" else row["frames"]
        clip = load_video(folder / row["video"], max_frames=10**5, fps=1000, max_pixels=64 * 64)
        right += len(clip) == expected and clip.times == sorted(set(clip.times))
    return [Number(f"video: real files of {len(rows)} with the right frame count", ">= 30", right, COMMAND)]


def video_numbers(out: Path) -> list[Number]:
    """All rows; those of the real videos only where the shared data is."""
    found = sampling_numbers(out)
    folder = Path(os.environ.get("RADIO_VLM_SHARED", ROOT.parent / "shared")) / "data/videos"
    return found + (real_numbers(folder) if folder.exists() else [])


if __name__ == "__main__":
    print(table(video_numbers(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/check/video"))))
