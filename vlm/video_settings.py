"""How videos are sampled, paired, averaged and pruned: the settings that config and processor share, checked once."""

from vlm.evs import check_places, check_pruning_rate

DEFAULT_VIDEO = {
    "max_frames": 8,
    "fps": 2.0,
    "temporal_patch_size": 1,
    "max_num_patches": None,
    "frame_labels": True,
    "temporal_pool": 1,
    "pruning_rate": 0.0,
}


def check_video(video: dict | None, projector_config: dict) -> dict:
    """`video` with defaults filled in and checked.

    Raises:
        ValueError: naming the field, its value and the fix.
    """
    full = {**DEFAULT_VIDEO, **(video or {})}
    for key in ("max_frames", "temporal_patch_size", "temporal_pool", "max_num_patches"):
        value = full[key]
        if value is None and key.startswith("max_"):  # no bound
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"video[{key!r}] ({value!r}) must be a whole number from 1 on")
    if not isinstance(full["fps"], (int, float)) or isinstance(full["fps"], bool) or full["fps"] <= 0:
        raise ValueError(f"video['fps'] ({full['fps']!r}) must be frames a second above 0")
    check_places(projector_config, check_pruning_rate(full["pruning_rate"]), full["temporal_pool"])
    return full
