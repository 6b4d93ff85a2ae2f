"""How checkpoints written by older versions still open: one entry a format version, config and weight names.

`config.format_version` counts up whenever a config key or a weight name changes. A step takes the config dict of
version n and returns that of version n + 1; its weight renames are (pattern, replacement) pairs for the keys.
A checkpoint of a *newer* version than this code knows is refused with the fix in the message.

* 0: drafts without `format_version`; projector weights named as in NVIDIA's Nemotron Nano V2 VL (`mlp1.0/1/3`),
  the placeholder id named `img_context_token_id`, shuffle settings at the top level.
* 1: before `vision_features` and encoders beyond the native class; all of it reads as the last block's features.
* 2: current. Older code would have ignored `vision_features` in silence, hence the step.
"""

from collections.abc import Callable

from vlm.errors import RadioVLMError

FORMAT_VERSION = 2


def _from_0(config: dict) -> dict:
    config = dict(config)
    projector = {"type": "pixel_shuffle", "downsample": 2, "ps_version": "v2", **config.pop("projector_config", {})}
    if "downsample_ratio" in config:
        projector["downsample"] = round(1 / config.pop("downsample_ratio"))
    if "ps_version" in config:
        projector["ps_version"] = config.pop("ps_version")
    if "projector_hidden_size" in config:
        projector["hidden_size"] = config.pop("projector_hidden_size")
    config["projector_config"] = projector
    if "img_context_token_id" in config:
        config["image_token_id"] = config.pop("img_context_token_id")
    return config


def _from_1(config: dict) -> dict:
    return dict(config)


CONFIG_STEPS: dict[int, Callable[[dict], dict]] = {0: _from_0, 1: _from_1}
WEIGHT_RENAMES: dict[int, dict[str, str]] = {
    0: {
        r"^mlp1\.0\.": "multi_modal_projector.layer_norm.",
        r"^mlp1\.1\.": "multi_modal_projector.linear_1.",
        r"^mlp1\.3\.": "multi_modal_projector.linear_2.",
    }
}


def migrate_config(config: dict) -> tuple[dict, int]:
    """The config dict in the current format, and the version it was written in."""
    version = int(config.get("format_version", 0))
    if version > FORMAT_VERSION:
        raise RadioVLMError(
            f"this checkpoint has format_version {version}, this code reads up to {FORMAT_VERSION}: upgrade radio-vlm"
        )
    for step in range(version, FORMAT_VERSION):
        config = CONFIG_STEPS[step](config)
    return {**config, "format_version": FORMAT_VERSION}, version


def weight_renames(version: int) -> dict[str, str]:
    """Key patterns to rename for weights written in `version`."""
    renames: dict[str, str] = {}
    for step in range(version, FORMAT_VERSION):
        renames.update(WEIGHT_RENAMES.get(step, {}))
    return renames
