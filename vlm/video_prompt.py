"""How a clip stands in the prompt: one wrapped run of placeholders a group of frames, labelled with the frames' times.

The words are those of NVIDIA's Omni processor: "Frame 1 sampled at 0.50 seconds: <img>...</img>", joined by newlines,
and "Frame 1 sampled at 0.00 seconds and frame 2 sampled at 0.50 seconds: " for two-frame tubelets. So are the times.
"""

from vlm.errors import SampleError

OFF_GRID = 0.25  # of a frame: how far a frame of a constant-rate video may lie from its place index / rate


def video_text(num_frames: int, timestamps: list[float] | None, chunk: str, video: dict) -> str:
    """Prompt text of one clip: a group is the frames behind one run of placeholders, the last may be short.

    Args:
        num_frames: Real frames, before the last one is repeated to fill a tubelet.
        timestamps: Seconds of each frame; None writes "Frame 1: ".
        chunk: What stands for one group, e.g. "<img><video></img>".
        video: temporal_patch_size (frames a tubelet, 1), temporal_pool (tubelets averaged into one, 1), frame_labels.
    """
    depth = video.get("temporal_patch_size", 1) * video.get("temporal_pool", 1)
    starts = range(0, num_frames, depth)
    if not video.get("frame_labels", True):
        return chunk * len(starts)
    lines = []
    for start in starts:
        names = []
        for i in range(start, min(start + depth, num_frames)):
            name = f"{'Frame' if i == start else 'frame'} {i + 1}"
            names.append(name if timestamps is None else f"{name} sampled at {timestamps[i]:.2f} seconds")
        lines.append(f"{' and '.join(names)}: {chunk}")
    return "\n".join(lines)


def constant_rate(times: list[float], rate: float | None) -> float | None:
    """`rate` if frames at `times` (seconds) are those of a video of that constant rate, else None.

    Each must lie within a quarter of a frame of a multiple of 1 / rate, no two at the same one, and a frame must last a
    millisecond at least, the unit in which NVIDIA's processor counts.
    """
    if rate is None or int(1000 / rate) < 1:
        return None
    indices = [round(time * rate) for time in times]
    is_constant = len(set(indices)) == len(times)
    return rate if is_constant and all(abs(t * rate - i) <= OFF_GRID for t, i in zip(times, indices)) else None


def prompt_times(times: list[float], rate: float | None) -> list[float]:
    """Seconds as the prompt shows them.

    At a constant rate those of NVIDIA's Omni processor, whose frame lasts whole milliseconds:
    index * int(1000 / rate) / 1000, so the second 1 of a video of 30 frames a second is shown as 0.99. With a varying
    rate (None) a frame's index says nothing about its time: the times themselves.
    """
    if rate is None:
        return list(times)
    milliseconds = int(1000 / rate)
    return [round(time * rate) * milliseconds / 1000 for time in times]


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` indices spread evenly over `count` frames, first and last included; all of them if there are fewer."""
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [count // 2]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def clip_of(
    source, timestamps: list[float] | None, max_frames: int | None, open_image
) -> tuple[list, list[float] | None]:
    """Frames given directly -> (frames, timestamps), thinned evenly to `max_frames`.

    `source` is a `VideoFrames`, a (T, 3, H, W) or (T, H, W, 3) array or tensor, or a list of images or paths.
    """
    if timestamps is None:
        timestamps = getattr(source, "timestamps", None)
    frames = getattr(source, "frames", source)
    count = len(frames)
    if count == 0:
        raise SampleError("the video has no frames", reason="no_frames")
    if timestamps is not None and len(timestamps) != count:
        raise SampleError(f"{len(timestamps)} timestamps for {count} frames", reason="bad_video")
    keep = spread(count, max_frames or count)
    kept = [open_image(frames[i]) for i in keep]
    return kept, None if timestamps is None else [float(timestamps[i]) for i in keep]
