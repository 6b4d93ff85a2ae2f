"""What a `volume` item of a conversation asks for: which volumes are read, and the pictures that are made of them.

The item's own syntax is that of `vlm.prompt_volumes`; MRI sequences as channels become one row of pictures each.
"""

from collections.abc import Callable, Mapping

from PIL import Image

from vlm.errors import SampleError
from vlm.media.modality import normal_modality
from vlm.media.nifti import is_nifti
from vlm.media.slice_budget import plan_slices
from vlm.media.slices import choose_slices
from vlm.media.volume import Volume
from vlm.media.volume_pictures import picture_sizes, volume_pictures
from vlm.media.volumes import name_of, read_channels, read_unnamed, read_volume

SLICES = 8
READING = ("modality", "series", "frame")
DRAWING = ("window", "axis", "layout", "max_tokens", "size")
Counter = Callable[[int, int], int]


def item_pictures(
    item: dict, num_tokens: Counter | None = None, volumes: list[Volume] | None = None
) -> list[tuple[str, list[tuple[str, Image.Image]]]]:
    """A volume item without null keys -> [(a sentence, [(label, RGB picture)])], one a volume or channel.

    Args:
        num_tokens: (height, width) -> tokens, for `max_tokens`.
        volumes: What `item_volumes` gave for it, where they were read already.

    Raises SampleError: no_media, bad_message, and those of the readers and of `volume_pictures`.
    """
    volumes = item_volumes(item) if volumes is None else volumes
    options = {key: item[key] for key in DRAWING if key in item}
    slices = item.get("slices", SLICES)
    if len(volumes) > 1:
        slices, options = _shared(volumes, slices, num_tokens, options)
    path = name_of(item_source(item))
    return [volume_pictures(one, slices, num_tokens=num_tokens, path=path, **options) for one in volumes]


def item_source(item: dict):
    """The path, bytes, or {channel: path or bytes} of an item. Raises SampleError("no_media")."""
    source = item.get("volume", item.get("path"))
    if isinstance(source, Mapping):
        source = {name: one for name, one in source.items() if one is not None}
    parts = list(source.values()) if isinstance(source, dict) else [source]
    if not parts or not all(isinstance(one, (str, bytes)) or hasattr(one, "__fspath__") for one in parts):
        message = "a volume item has no volume (path of a folder or file, or {channel: path})"
        raise SampleError(message, reason="no_media")
    return source


def item_volumes(item: dict) -> list[Volume]:
    """The volume of an item, or one a channel. Raises SampleError."""
    source, names = item_source(item), _channels(item)
    if names is None:
        return [read_volume(source, **{key: item[key] for key in READING if key in item})]
    return list(read_channels(source, names).values())


def item_sizes(item: dict, num_tokens: Counter | None = None) -> list[tuple[int, int]]:
    """(height, width) of the pictures of an item, from headers alone; an estimate, since slices at the ends that show
    nothing may be left out. Raises SampleError as far as headers show what is wrong.
    """
    item = {key: value for key, value in item.items() if value is not None}
    source, names = item_source(item), _channels(item)
    options = {key: item[key] for key in ("series", "frame") if key in item}
    if names is not None:  # all lie on one grid, so any of them tells the size
        source = next(iter(source.values())) if isinstance(source, dict) else source
        if "channels" in item and name_of(source).is_dir():
            options = {"series": 1}
        elif "channels" in item and not isinstance(item_source(item), dict) and is_nifti(source):
            options = {"frame": 0}
    volume = read_unnamed(source, **options, outline=True)
    drawing = {key: item[key] for key in DRAWING if key in item and key != "window"}
    if names and isinstance(drawing.get("max_tokens"), int):
        drawing["max_tokens"] = max(1, drawing["max_tokens"] // len(names))
    return picture_sizes(volume, item.get("slices", SLICES), num_tokens=num_tokens, **drawing) * len(names or [""])


def _channels(item: dict) -> list[str] | None:
    """Names of the channels asked for; None for a single volume."""
    source = item_source(item)
    if not isinstance(source, dict) and "channels" not in item:
        return None
    names = item.get("channels", list(source) if isinstance(source, dict) else None)
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise SampleError(f"channels are a list of names, not {names!r:.60}", reason="bad_message")
    if "series" in item or "frame" in item or isinstance(source, bytes):
        message = "channels are chosen by name: leave out series and frame, and give files or a folder"
        raise SampleError(message, reason="bad_message")
    if normal_modality(item.get("modality", "MR")) != "MR":
        raise SampleError("channels are sequences of an MRI: modality is MR", reason="other_modality")
    return list(names)


def _shared(volumes: list[Volume], slices, num_tokens: Counter | None, options: dict) -> tuple:
    """(numbers of the slices that every channel shows, options of a channel), within the item's budget."""
    options = dict(options)
    if isinstance(options.get("max_tokens"), int):
        options["max_tokens"] = max(1, options["max_tokens"] // len(volumes))
    if not isinstance(slices, int):
        return slices, options
    axis, layout = options.get("axis", "axial"), options.get("layout", "slices")
    count = len(choose_slices(volumes[0], slices, axis))
    if "max_tokens" in options:
        count = plan_slices(volumes[0], count, axis, layout, options["max_tokens"], num_tokens).count
    return [index + 1 for index in choose_slices(volumes[0], count, axis)], options
