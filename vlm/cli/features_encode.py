"""What `radio-vlm features` computes: an encoder opened, sizes planned, pictures turned to coloured feature maps.

Not a command itself.
"""

import json
import logging
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from encoders.feature_maps import RunningStats, align_signs, check_finite, fit_basis
from vlm.errors import RadioVLMError

logger = logging.getLogger(__name__)

LAST = "last layer"  # name of the map of the encoder's own output
DEFAULT_MAX_SIZE = 1024
SHOWN = 960  # pixels a side that are kept of a picture for looking at
VIDEO_SUFFIXES = ".mp4 .mkv .mov .avi .webm .m4v .mpg .mpeg .wmv .flv .ts .ogv .3gp".split()
ENOUGH_SECONDS, ENOUGH_RUNS = 1.0, 3  # a short pass is timed several times


@dataclass
class Encoded:
    """One picture or video, through the encoder.

    Attributes:
        frames: the pictures, at most `SHOWN` pixels a side; `times` in seconds (a video's).
        original, size, grid: (height, width): of the file, of the encoder's input, in patches.
        maps: by name, features `(frames, D, h, w)` float32 on the CPU; emptied once they are coloured.
        colours: by name, uint8 `(frames, h, w, 3)`; `explained`: shares of variance of the three components.
        stats: (mean, standard deviation) of the features of every block.
        milliseconds: median of `runs` warm passes.
    """

    path: Path
    kind: str
    frames: list[Image.Image]
    times: list[float]
    original: tuple[int, int]
    size: tuple[int, int]
    grid: tuple[int, int]
    prefix_tokens: int
    maps: dict[str, torch.Tensor] = field(default_factory=dict)
    colours: dict[str, torch.Tensor] = field(default_factory=dict)
    explained: dict[str, list[float]] = field(default_factory=dict)
    stats: list[tuple[float, float]] = field(default_factory=list)
    milliseconds: float = 0.0
    runs: int = 0

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def shuffled_tokens(self) -> int:
        """Tokens after a pixel shuffle 2 x 2; an odd side is filled up."""
        from projectors.components import num_tokens

        return num_tokens({"type": "pixel_shuffle", "downsample": 2, "odd_grids": "pad"}, *self.grid)


def kind_of(path: Path) -> str:
    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image"


def check_media(paths: list[Path], max_frames: int, fps: float) -> None:
    """Refuse what cannot be read before anything large is loaded."""
    from vlm.media import load_image, load_video

    for path in paths:
        if kind_of(path) == "image":
            load_image(path)
        else:
            load_video(path, max_frames=1)
    if max_frames < 1 or fps <= 0:
        raise RadioVLMError(f"--max-frames {max_frames} and --fps {fps:g} must be positive")


def open_encoder(source: str, adaptors: list[str], window: int | None, device: str, dtype: str):
    """The encoder in eval mode: any RADIO checkpoint, or the vision tower of a RADIO-VLM one.

    dtype "auto": float32 on a CPU, as stored on anything else.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = torch.float32 if dtype == "auto" and device == "cpu" else _dtype(dtype)
    try:
        if _is_vlm(source):
            encoder = _vision_tower(source, adaptors, window, wanted)
        else:
            from encoders.radio_encoder import RadioEncoder

            encoder = RadioEncoder.from_pretrained(
                source, adaptors=adaptors or None, vitdet_window_size=window, dtype=wanted
            )
    except RadioVLMError:
        raise
    except (ValueError, OSError) as error:
        raise RadioVLMError(f"--encoder: {one_line(error)}") from error
    try:
        return encoder.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:  # the latter from builds of torch without CUDA
        raise RadioVLMError(f"--device {device}: {one_line(error)}") from error


def _dtype(name: str) -> torch.dtype | None:
    """None for "auto": as stored."""
    dtype = None if name == "auto" else getattr(torch, name, name)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise RadioVLMError(f"--dtype {name}: known are auto, float32, bfloat16 and float16")
    return dtype


def _is_vlm(source: str) -> bool:
    config = Path(source).expanduser() / "config.json"
    try:
        return json.loads(config.read_text()).get("model_type") == "radio_vlm"
    except (OSError, ValueError, AttributeError):
        return False  # whatever is wrong with it, the encoder's own loading says it better


def _vision_tower(source: str, adaptors: list[str], window: int | None, dtype: torch.dtype | None):
    from vlm.build import load_vlm

    tower = load_vlm(str(Path(source).expanduser()), dtype=dtype or "auto")[0].vision_model
    own = getattr(tower.config, "vitdet_window_size", None)
    if window is not None and window != own:
        raise RadioVLMError(f"--vitdet-window {window}: {source} is a whole model that was trained with window {own}")
    held = sorted(getattr(tower.config, "adaptors", None) or {})
    if missing := [name for name in adaptors if name not in held]:
        raise RadioVLMError(f"--adaptor {missing[0]}: the vision tower of {source} holds {', '.join(held) or 'none'}")
    return tower


def plan_size(
    encoder, height: int, width: int, exact: tuple[int, int] | None, longest: int | None
) -> tuple[int, int]:
    """(height, width) at which a picture is encoded: its own size, bounded, rounded to what the encoder takes."""
    step = encoder.min_resolution_step
    if exact is not None:
        nearest = tuple(encoder.get_nearest_supported_resolution(*exact))
        if nearest != tuple(exact):
            raise RadioVLMError(
                f"--size {exact[0]} {exact[1]}: both sides must be multiples of {_step_words(encoder)}; the nearest "
                f"size is {nearest[0]} {nearest[1]}"
            )
        return nearest
    longest = longest or default_max_size(encoder)
    if longest < step:
        raise RadioVLMError(f"--max-size {longest}: a side has at least {_step_words(encoder)} pixels")
    shrink = min(1.0, longest / max(height, width))
    nearest = encoder.get_nearest_supported_resolution(max(1, round(height * shrink)), max(1, round(width * shrink)))
    return tuple(min(side, longest // step * step) for side in nearest)


def default_max_size(encoder) -> int:
    """Longest side without --max-size: 1024, less where the release takes less, more where a window asks for more."""
    most = min(DEFAULT_MAX_SIZE, getattr(encoder.config, "max_resolution", None) or DEFAULT_MAX_SIZE)
    return max(most, encoder.min_resolution_step)


def _step_words(encoder) -> str:
    window = getattr(encoder.config, "vitdet_window_size", None)
    patch = encoder.config.patch_size
    return f"{patch * window} (patch {patch} × window {window})" if window else f"{patch} (the patch)"


def chosen_layers(encoder, wanted: list[int] | None) -> list[int]:
    """Block numbers, ascending; without a choice the ends of the first three quarters of the encoder."""
    depth = encoder.config.num_hidden_layers
    if wanted is None:
        return sorted({max(quarter * depth // 4 - 1, 0) for quarter in (1, 2, 3)})
    if wrong := [layer for layer in wanted if not -depth <= layer < depth]:
        raise RadioVLMError(f"--layers {wrong[0]}: the encoder's {depth} blocks are numbered 0 to {depth - 1}")
    return sorted({layer % depth for layer in wanted})


def encode(encoder, path: Path, size: dict, layers: list[int], clip: dict) -> Encoded:
    """One file through the encoder. `size`: exact and longest of `plan_size`; `clip`: options of `load_video`."""
    from vlm.image_processing_radio_vlm import resize, to_tensor
    from vlm.media import load_image, load_video

    kind, times = kind_of(path), [0.0]
    if kind == "video":
        video = load_video(path, **clip)
        frames, times = list(video.frames), video.timestamps
    else:
        frames = [to_tensor(load_image(path))]
    original = tuple(frames[0].shape[-2:])
    height, width = plan_size(encoder, *original, **size)
    patch = encoder.config.patch_size
    done = Encoded(
        path, kind, [_to_look_at(frame) for frame in frames], times, original, (height, width),
        (height // patch, width // patch), encoder.config.num_summary_tokens,
    )  # fmt: skip
    logger.info("encoding %s at %d × %d%s", path.name, height, width, f", {len(frames)} frames" * (kind == "video"))
    stats = [RunningStats() for _ in range(encoder.config.num_hidden_layers)]
    found: dict[str, list[torch.Tensor]] = {}
    seconds: list[float] = []
    try:
        for frame in frames:
            pixels = (resize(frame[None], height, width).float() / 255).clamp(0, 1).to(encoder.device)
            _encode_frame(encoder, pixels, layers, stats, found, seconds, several=kind == "image")
    except torch.OutOfMemoryError as error:
        raise RadioVLMError(f"{path.name}: {height} × {width} needs more memory; try a smaller --max-size") from error
    except ValueError as error:
        raise RadioVLMError(f"{path.name}: {one_line(error)} (weights in {encoder.dtype}, {encoder.device})") from error
    done.maps = {name: torch.cat(parts) for name, parts in found.items()}
    done.stats = [(stat.mean, stat.std) for stat in stats]
    done.milliseconds, done.runs = 1000 * statistics.median(seconds), len(seconds)
    return done


@torch.inference_mode()
def _encode_frame(encoder, pixels, layers, stats, found, seconds, several: bool) -> None:
    """Statistics of every block, maps of the chosen ones, then the timed pass, which that first one has warmed up."""
    blocks = encoder.forward_intermediates(
        pixels, indices=list(range(len(stats))), output_fmt="NCHW", intermediates_only=True
    )
    for number, (features, stat) in enumerate(zip(blocks, stats)):
        check_finite(features, f"features of block {number}")
        stat.add(features)
    kept = {f"block {number}": blocks[number] for number in layers}
    del blocks
    timed: list[float] = []
    while not timed or (several and len(timed) < ENOUGH_RUNS and sum(timed) < ENOUGH_SECONDS):
        _wait(pixels.device)
        start = time.perf_counter()
        output = encoder(pixels, feature_fmt="NCHW")
        _wait(pixels.device)
        timed.append(time.perf_counter() - start)
    seconds += timed
    kept = {LAST: output.features, **kept}
    for name, adaptor in (output.adaptors or {}).items():
        check_finite(adaptor.features, f"features of adaptor {name}")
        kept[f"adaptor {name}"] = adaptor.features
    check_finite(output.features, "features")
    for name, features in kept.items():
        found.setdefault(name, []).append(features.float().cpu())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _to_look_at(frame: torch.Tensor) -> Image.Image:
    picture = Image.fromarray(frame.to(torch.uint8).permute(1, 2, 0).numpy())
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    return picture


def colour(batch: list[Encoded]) -> None:
    """Fit one basis per kind of map over everything in `batch`, colour the maps with it, and let go of the features.

    Signs follow the map of the last layer, so that structure keeps its colours from block to block where it can.
    """
    last = [one.maps[LAST] for one in batch]
    reference = fit_basis(last, LAST)
    for name in batch[0].maps:
        maps = [one.maps[name] for one in batch]
        basis = reference if name == LAST else align_signs(fit_basis(maps, name), maps, reference, last)
        for one, features in zip(batch, maps):
            one.colours[name] = basis.colours(features)
            one.explained[name] = basis.explained.tolist()
    for one in batch:
        one.maps = {}


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
