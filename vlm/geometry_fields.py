"""The settings of a geometry: which fields each mode has, their defaults and what they may be."""

from vlm.scale_grids import min_last_tiles
from vlm.tile_grids import ASPECT_RULES

COMMON = {"mode": "dynamic", "patch_size": 16, "multiple": 2, "max_prompt_patches": None}
MODE_FIELDS: dict[str, dict] = {
    "dynamic": {"min_num_patches": 1024, "max_num_patches": 13312},
    "fixed": {"size": None},
    "tiles": {"tile_size": 512, "max_tiles": 12, "thumbnail": True, "aspect_rule": "closest"},
    "multi_scale": {"scales": [448, 896, 1344], "last_scale": "dynamic", "max_tiles": 12},
}
MODES = tuple(MODE_FIELDS)
LAST_SCALES = ("dynamic", "square")
MOST_TILES = 256  # the arrangements of more would take seconds to go through for each picture


def filled(geometry: dict) -> dict:
    """`geometry` with the defaults of its mode for what is absent or None; nothing is checked."""
    given = {key: value for key, value in geometry.items() if value is not None}
    return {**COMMON, **MODE_FIELDS[given.get("mode", "dynamic")], **given}


def check_geometry(geometry: dict) -> dict:
    """`geometry` with defaults filled in and checked. `max_prompt_patches` is in the answer only where it is set.

    Raises:
        ValueError: naming the field, its value and the fix.
    """
    mode = geometry.get("mode") or "dynamic"
    if mode not in MODES:
        raise ValueError(f"geometry mode {mode!r} is unknown; known: {', '.join(MODES)}")
    _check_names(geometry, mode)
    full = filled(geometry)
    for key in ("patch_size", "multiple"):
        _check_integer(full, key, 1)
    {"dynamic": _check_dynamic, "fixed": _check_fixed, "tiles": _check_tiles, "multi_scale": _check_scales}[mode](full)
    if full["max_prompt_patches"] is None:
        return {key: value for key, value in full.items() if key != "max_prompt_patches"}
    smallest, what = smallest_picture(full)
    if _is_integer(full["max_prompt_patches"]) and full["max_prompt_patches"] >= smallest:
        return full
    raise ValueError(
        f"geometry max_prompt_patches={full['max_prompt_patches']!r} must be None (no bound) or an integer of at least "
        f"{smallest}, the patches of {what}"
    )


def smallest_picture(full: dict) -> tuple[int, str]:
    """The fewest patches a picture can have under a checked geometry, and what has so few."""
    patch = full["patch_size"]
    if full["mode"] == "dynamic":
        return full["multiple"] ** 2, f"the smallest picture at multiple={full['multiple']}"
    if full["mode"] == "fixed":
        return full["size"][0] // patch * (full["size"][1] // patch), f"one picture of size={full['size']}"
    if full["mode"] == "tiles":
        return (full["tile_size"] // patch) ** 2, f"one tile of tile_size={full['tile_size']}"
    views = sum((scale // full["scales"][0]) ** 2 for scale in full["scales"])
    return views * (full["scales"][0] // patch) ** 2, f"one picture at scales={full['scales']}"


def _check_names(geometry: dict, mode: str) -> None:
    """Refuse fields nobody knows and, unless None, fields of other modes."""
    own = {*COMMON, *MODE_FIELDS[mode]}
    owners = {name: [m for m in MODES if name in MODE_FIELDS[m]] for fields in MODE_FIELDS.values() for name in fields}
    for name, value in geometry.items():
        if name not in own and name not in owners:
            known = ", ".join(sorted(own))
            raise ValueError(f"unknown geometry field {name!r}; mode {mode!r} knows: {known}")
        if name not in own and value is not None:
            modes = " and ".join(repr(m) for m in owners[name])
            raise ValueError(
                f"geometry field {name}={value!r} does not belong to mode {mode!r} but to {modes}: leave it out, or "
                f"set mode to {modes}"
            )


def _is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_integer(full: dict, key: str, least: int, why: str = "") -> None:
    if not _is_integer(full[key]) or full[key] < least:
        raise ValueError(f"geometry {key}={full[key]!r} must be an integer of at least {least}{why}")


def _side(full: dict) -> int:
    """Pixels that the sides of every view are multiples of."""
    return full["patch_size"] * full["multiple"]


def _check_dynamic(full: dict) -> None:
    for key in ("min_num_patches", "max_num_patches"):
        _check_integer(full, key, 0)
    smallest, low, high = full["multiple"] ** 2, full["min_num_patches"], full["max_num_patches"]
    if high and (high < low or high < smallest):
        raise ValueError(
            f"geometry max_num_patches={high} must be 0 (no cap) or at least min_num_patches={low} and "
            f"multiple**2={smallest}"
        )


def _check_fixed(full: dict) -> None:
    size, side = full["size"], _side(full)
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    if not is_pair or any(not _is_integer(s) or s < 1 or s % side for s in size):
        raise ValueError(
            f"geometry size={size} with mode 'fixed' must be [height, width] in pixels, both positive multiples of "
            f"patch_size * multiple = {side}"
        )
    full["size"] = list(size)


def _check_tiles(full: dict) -> None:
    _check_integer(full, "tile_size", 1)
    if full["tile_size"] % _side(full):
        raise ValueError(
            f"geometry tile_size={full['tile_size']} must be a multiple of patch_size * multiple = {_side(full)} (the "
            "projector's fold; with projector_config['odd_grids'] = 'pad' pixel shuffle takes any)"
        )
    _check_max_tiles(full, 1, "")
    if not isinstance(full["thumbnail"], bool):
        raise ValueError(f"geometry thumbnail={full['thumbnail']!r} must be true or false")
    if full["aspect_rule"] not in ASPECT_RULES:
        raise ValueError(f"geometry aspect_rule={full['aspect_rule']!r} is unknown; known: {', '.join(ASPECT_RULES)}")


def _check_scales(full: dict) -> None:
    scales, side = full["scales"], _side(full)
    scales = [scales] if _is_integer(scales) else scales  # the command line reads one number as a number
    if not isinstance(scales, (list, tuple)) or not scales or not all(_is_integer(s) and s > 0 for s in scales):
        raise ValueError(f"geometry scales={scales!r} must be a list of sides in pixels, e.g. [512, 1024, 1536]")
    full["scales"] = scales = list(scales)
    rising = all(small < large for small, large in zip(scales, scales[1:]))
    if not rising or any(scale % scales[0] for scale in scales) or scales[0] % side:
        raise ValueError(
            f"geometry scales={scales} must rise, be multiples of the first, and the first one of "
            f"patch_size * multiple = {side}"
        )
    if full["last_scale"] not in LAST_SCALES:
        raise ValueError(f"geometry last_scale={full['last_scale']!r} is unknown; known: {', '.join(LAST_SCALES)}")
    least = min_last_tiles(scales) if full["last_scale"] == "dynamic" else 1
    _check_max_tiles(full, least, f", the tiles of scales[-1]={scales[-1]} as a square")


def _check_max_tiles(full: dict, least: int, why: str) -> None:
    _check_integer(full, "max_tiles", least, why if least > 1 else "")
    if full["max_tiles"] > MOST_TILES:
        raise ValueError(f"geometry max_tiles={full['max_tiles']} is more than {MOST_TILES}; lower it")
