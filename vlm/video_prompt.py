"""How a clip stands in the prompt: one wrapped run of placeholders a tubelet, labelled with its frames' times.

The words are those of NVIDIA's Omni processor: "Frame 1 sampled at 0.50 seconds: <img>...</img>", joined by newlines,
and "Frame 1 sampled at 0.00 seconds and frame 2 sampled at 0.50 seconds: " for two-frame tubelets.
"""

from vlm.errors import SampleError


def video_text(num_frames: int, timestamps: list[float] | None, chunk: str, video: dict) -> str:
    """Prompt text of one clip.

    Args:
        num_frames: Real frames, before the last one is repeated to fill a tubelet.
        timestamps: Seconds of each frame; None writes "Frame 1: ".
        chunk: What stands for one tubelet, e.g. "<img><video></img>".
        video: temporal_patch_size, frame_labels.
    """
    depth = video.get("temporal_patch_size", 1)
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
