"""How large the pictures of a file are, from headers where they say it: what `radio-vlm tokens` plans with.

Not a command. Told apart by content: documents (PDF, TIFF of several pages), pictures (the turn of a phone's photo
counts), DICOM, animations, videos and volumes (a folder of slices, NIfTI). A video's first frame is decoded, since only
frames say how they are turned.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from vlm.errors import SampleError


@dataclass(frozen=True)
class Sampling:
    """What of a file is looked at: of a video `fps`, `max_frames`, `start`, `end`; of a document `pages` and `dpi`; of
    a volume so many `slices`."""

    fps: float = 2.0
    max_frames: int = 128
    start: float | None = None
    end: float | None = None
    pages: str | None = None
    dpi: float | None = None
    slices: int = 8


@dataclass(frozen=True)
class TokenInput:
    """One file. `sizes`: (height, width) in pixels of every page, of a video's frames once; `frames`: 0 or theirs."""

    path: Path
    kind: str  # "image", "document", "video" or "volume"
    sizes: tuple[tuple[int, int], ...]
    frames: int = 0
    facts: str = ""
    numbers: tuple[int, ...] = ()  # of the pages, from 1

    @property
    def about(self) -> str:
        """The file in words, sizes as width×height."""
        if self.kind == "video":
            return f"video of {_size(self.sizes[0])}, {self.facts}"
        if self.kind == "image":
            return f"image of {_size(self.sizes[0])}"
        if self.kind == "volume":
            return f"volume of {self.facts}, {len(self.sizes)} shown at {_size(self.sizes[0])}"
        count = f"{len(self.sizes)} page{'' if len(self.sizes) == 1 else 's'}"
        kinds = set(self.sizes)
        words = f"{count} of {_size(self.sizes[0]) if len(kinds) == 1 else f'{len(kinds)} sizes'}"
        return f"document, {words}{f' at {self.facts}' if self.facts else ''}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"


def read_input(path: str | Path, sampling: Sampling) -> TokenInput:
    """The sizes of one file.

    Raises:
        SampleError: naming the file that is missing, empty, broken, or neither a picture, document nor video.
    """
    path = Path(path).expanduser()
    if path.is_dir() or (path.is_file() and path.name.lower().endswith((".nii", ".nii.gz"))):
        return read_volume_sizes(path, sampling)
    if not path.is_file():
        raise SampleError("no such file", path=path, reason="missing_file")
    try:
        return read_pages(path, sampling)
    except SampleError as error:
        if error.reason == "animation":
            return read_animation(path, sampling)
        if error.reason != "unreadable_image":
            raise
    except (OSError, ValueError) as error:
        raise SampleError(f"cannot read: {error}", path=path, reason="unreadable_file") from error
    try:
        return read_video(path, sampling)
    except SampleError as error:
        if error.reason not in ("unreadable_video", "no_frames"):
            raise
        why = f" ({error.message})" if error.reason == "no_frames" else ""
        message = f"neither a picture, a document nor a video that can be read{why}"
        raise SampleError(message, path=path, reason=error.reason) from error


def read_pages(path: Path, sampling: Sampling) -> TokenInput:
    """A picture or document; sizes without decoding or rendering."""
    from vlm.media.image import MAX_PIXELS
    from vlm.media.pages import open_document

    options = {} if sampling.dpi is None else {"dpi": sampling.dpi}
    refs = open_document(path, pages=sampling.pages, **options)
    sizes = tuple(tuple(ref.size()) for ref in refs)
    for height, width in sizes:
        if height * width > MAX_PIXELS:
            message = f"image of {width} x {height} pixels is larger than max_pixels={MAX_PIXELS}"
            raise SampleError(message, path=path, reason="too_large")
    if len(refs) == 1 and refs[0].kind != "pdf":
        return TokenInput(path, "image", sizes)
    facts = f"{refs[0].dpi:g} dpi" if refs[0].kind == "pdf" else ""
    return TokenInput(path, "document", sizes, 0, facts, tuple(ref.number for ref in refs))


def read_volume_sizes(path: Path, sampling: Sampling) -> TokenInput:
    """A volume, by its headers; slices at its ends that show nothing count, too."""
    from vlm.media.volume_pictures import picture_sizes
    from vlm.media.volumes import read_unnamed

    volume = read_unnamed(path, outline=True)
    sizes = tuple(picture_sizes(volume, sampling.slices))
    return TokenInput(path, "volume", sizes, 0, f"{volume.array.shape[2]} slices", tuple(range(1, len(sizes) + 1)))


def read_animation(path: Path, sampling: Sampling) -> TokenInput:
    """An animated GIF, WebP or PNG: short, so simply sampled."""
    from vlm.media.video import load_video

    clip = load_video(path, sampling.max_frames, sampling.fps, sampling.start, sampling.end)
    count = len(clip)
    return TokenInput(path, "video", (tuple(clip.frames.shape[-2:]),), count, f"animation, {_frames(count)} sampled")


def read_video(path: Path, sampling: Sampling) -> TokenInput:
    """A video: length and rate of its header, size and turn of its first frame, frames as `load_video` would plan."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading video files needs PyAV: pip install 'radio-vlm[video]'") from error
    from vlm.media.video import plan_times
    from vlm.media.video_stream import VideoStream

    try:
        with VideoStream(path, threads="SLICE") as source:
            duration, rate = source.duration(), source.rate
            start, end = max(sampling.start or 0.0, 0.0), math.inf if sampling.end is None else sampling.end
            if start >= min(end, duration):
                message = f"start={start:g} s, end={end:g} s is no range of a video of {duration:.2f} s"
                raise SampleError(message, path=path, reason="bad_range")
            times = plan_times(duration, sampling.max_frames, sampling.fps, start, end)
            # no frame is taken twice, and a slow video has fewer than are planned
            count = len({math.floor(time * rate + 1e-3 * rate) for time in times}) if source.is_constant else len(times)
            frame = next(source.container.decode(source.stream), None)
            if frame is None:
                raise SampleError("no frame can be decoded", path=path, reason="unreadable_video")
            size = upright_size(frame, source.pixel_aspect(), count)
    except av.FFmpegError as error:
        raise SampleError(f"cannot decode video: {error}", path=path, reason="unreadable_video") from error
    return TokenInput(path, "video", (size,), count, f"{duration:.1f} s at {rate:.4g} fps, {_frames(count)} sampled")


def upright_size(frame, aspect: float, count: int) -> tuple[int, int]:
    """(height, width) at which one of `count` frames is kept, upright and with square pixels."""
    import numpy as np

    from vlm.media.video_pixels import MAX_CLIP_PIXELS, MAX_PIXELS, display_matrix, shown_size, upright

    width, height = shown_size(frame.width, frame.height, aspect, max(1, min(MAX_PIXELS, MAX_CLIP_PIXELS // count)))
    turned = upright(np.broadcast_to(np.uint8(0), (height, width, 3)), display_matrix(frame))
    return turned.shape[0], turned.shape[1]


def visual_count(token_types) -> int:
    """Placeholders among `mm_token_type_ids`; 3 marks the word before a pruned frame, which is none."""
    return int(((token_types == 1) | (token_types == 2)).sum())


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
