"""Finding the parts of a new model: a preset, a hub id, a folder or a file becomes a config, or a model with weights.

Not a command. Encoders open through `RadioEncoder`, which takes every released form and refuses what it cannot open in
full; language models through transformers, and what that would fill in at random is refused here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.errors import RadioVLMError

# Whole models by name: the parts, and settings that only fit together. `--vision`, `--llm` and the rest override them.
MODEL_PRESETS: dict[str, dict[str, Any]] = {
    # pictures of about 100 to 250 pixels a side, as in the embedded corpora, keep their size
    "tiny": {
        "vision": "tiny",
        "llm": "tiny",
        "geometry": {"min_num_patches": 4, "max_num_patches": 256},
        "video": {"max_frames": 8, "max_num_patches": 64, "frame_labels": False},
    }
}

# from_pretrained tells what did not fit instead of raising or filling in: `check_fit` decides
REPORT = {"output_loading_info": True, "ignore_mismatched_sizes": True}


@dataclass
class Parts:
    """What `vlm.build.build_vlm` needs, and where it came from (written into the config, used by the model card).

    `report`: what became of the encoder's checkpoint, an `encoders.checkpoint_loading.LoadReport`; None for presets.
    """

    vision: Any
    text: Any
    tokenizer: Any
    vision_origin: str
    text_origin: str
    report: Any = None


def parse_pairs(pairs: list[str], option: str) -> dict[str, Any]:
    """`["a=1", "size=512,512", "bias=false"]` → `{"a": 1, "size": [512, 512], "bias": False}`."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise RadioVLMError(f"{option}: expected KEY=VALUE, got {pair!r}")
        values[key] = [_value(part) for part in text.split(",")] if "," in text else _value(text)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        return None if text.lower() in ("none", "null") else text


def model_preset(name: str | None) -> dict[str, Any]:
    """The whole-model preset called `name`; {} for None; an unknown name lists the known ones."""
    if name is None:
        return {}
    if name not in MODEL_PRESETS:
        known = ", ".join(MODEL_PRESETS)
        raise RadioVLMError(f"--preset: unknown {name!r}; known: {known} (parts: --vision and --llm, see --list)")
    return MODEL_PRESETS[name]


def find_preset(name: str, presets: dict[str, Any]) -> tuple[str, Any] | None:
    """The preset called `name`, or whose hub id is `name`; letters may be of either case."""
    for key, preset in presets.items():
        if name.lower() in (key.lower(), (preset.hub_id or key).lower()):
            return key, preset
    return None


def check_known(name: str, presets: dict[str, Any], option: str) -> None:
    """A name that is neither a preset, nor a folder, nor of the form owner/name is a typing error: list the known."""
    if find_preset(name, presets) or Path(name).is_dir():
        return
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise RadioVLMError(f"{option}: no folder {name}")
    if "/" not in name:
        known = "\n".join(f"  {key:24} {preset.hub_id or '(random weights)'}" for key, preset in presets.items())
        raise RadioVLMError(f"{option}: unknown preset {name!r}, and there is no such folder. Known presets:\n{known}")


def load_parts(
    vision: str,
    llm: str,
    tokenizer: str | None,
    dtype: str,
    weights: bool = True,
    download: bool = True,
    windows: dict[str, int] | None = None,
) -> Parts:
    """Configs or (`weights`) models with weights, for both parts. Raises `RadioVLMError` naming the option.

    `download=False` fetches no tokenizer either: see `load_tokenizer`. `windows`: see `load_vision`.
    """
    from encoders.presets import VISION_PRESETS
    from encoders.versions import RELEASES
    from llm.presets import LLM_PRESETS

    if vision.lower() not in RELEASES and not Path(vision).is_file():
        check_known(vision, VISION_PRESETS, "--vision")
    check_known(llm, LLM_PRESETS, "--llm")
    vision_part, vision_origin, report = load_vision(vision, VISION_PRESETS, dtype, weights, windows, download)
    text_part, text_origin = load_text(llm, LLM_PRESETS, dtype, weights)
    words = load_tokenizer(tokenizer, llm, LLM_PRESETS, download)
    return Parts(vision_part, text_part, words, vision_origin, text_origin, report)


def load_vision(
    name: str,
    presets: dict[str, Any],
    dtype: str,
    weights: bool,
    windows: dict[str, int] | None = None,
    download: bool = True,
) -> tuple[Any, str, Any]:
    """(`RadioEncoderConfig` or `RadioEncoder`, origin, report of its loading).

    Teacher heads stay in the checkpoint; the report names them. Without `weights` a preset answers by itself, anything
    else is opened and checked, but not read. `windows`: `vitdet_window_size`, `vitdet_num_global`.
    """
    from encoders.radio_encoder import RadioEncoder
    from encoders.versions import RELEASES
    from vlm.build import tower_config

    release = RELEASES.get(name.lower())
    preset = find_preset((release and release.hub_id) or name, presets)
    if preset and (not preset[1].hub_id or not weights):
        return tower_config(preset[1].config(), windows), preset[1].hub_id or f"preset:{preset[0]}", None
    source = preset[1].hub_id if preset else name
    origin = source if not Path(source).exists() else f"local:{Path(source).resolve().name}"
    try:
        encoder = RadioEncoder.from_pretrained(
            source, adaptors=[], dtype=dtype, weights=weights, local_files_only=not download, **(windows or {})
        )
    except ValueError as error:
        raise RadioVLMError(f"--vision: {error}") from error
    return encoder if weights else encoder.config, origin, encoder.report


def load_text(name: str, presets: dict[str, Any], dtype: str, weights: bool) -> tuple[Any, str]:
    """(config or causal language model, origin). Remote code is never run: only families transformers knows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    preset = find_preset(name, presets)
    if preset and (not preset[1].hub_id or not weights):
        return preset[1].config(), preset[1].hub_id or f"preset:{preset[0]}"
    source = preset[1].hub_id if preset else name
    origin = source if not Path(source).is_dir() else f"local:{Path(source).resolve().name}"
    with _explained("--llm", source):
        if not weights:
            return AutoConfig.from_pretrained(source, trust_remote_code=False), origin
        model, info = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=False, **REPORT)
    check_fit("--llm", source, info, sorted(info["unexpected_keys"]))
    return model, origin


def check_fit(option: str, source: str, info: dict[str, Any], left: list[str]) -> None:
    """Refuse weights that would leave a part of the model random, or lose a part of themselves."""
    lost = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lost or left:
        raise RadioVLMError(
            f"{option}: the weights of {source} do not fit its config: missing or of another size "
            f"{lost[:3] or 'none'}, not used {left[:3] or 'none'} ({len(lost)} and {len(left)} in all)"
        )


def load_tokenizer(name: str | None, llm: str, presets: dict[str, Any], download: bool = True) -> Any:
    """The tokenizer of the language model, or the one named; a preset with random weights brings its own.

    `download=False`: a hub id that is not in the local cache gets a stand-in, whose vocabulary is not the real one.
    """
    from transformers import AutoTokenizer

    preset = find_preset(llm, presets)
    if name is None and preset and not preset[1].hub_id:
        return preset[1].tokenizer()
    source = name or (preset[1].hub_id if preset else llm)
    with _explained("--tokenizer" if name else "--llm", source):
        try:
            return AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=not download)
        except OSError:
            if download or Path(source).is_dir():
                raise
            from llm.tiny_tokenizer import build_byte_tokenizer

            return build_byte_tokenizer()


class _explained:
    """Turns what transformers raises for a missing or broken source into one line that names the option."""

    def __init__(self, option: str, source: str):
        self.option, self.source = option, source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, (OSError, ValueError, KeyError, RuntimeError)) and not isinstance(error, RadioVLMError):
            raise RadioVLMError(f"{self.option}: cannot load {self.source}: {error}") from error
