"""Hand-over: from any RADIO-VLM checkpoint to a folder that opens with only torch, transformers and Pillow installed.

The code files and the `auto_map`s come from `vlm/self_contained.py`, the same way as in every `save_pretrained`; this
file adds what a hand-over needs on top: only the files a user needs (no optimizer states), a model card, a check.
"""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from vlm.errors import RadioVLMError
from vlm.model_card import model_card
from vlm.self_contained import CONFIG_AUTO_MAP, collect_code, write_auto_maps, write_code

logger = logging.getLogger(__name__)

# What a checkpoint folder hands over; optimizer states, logs and trainer files of a stage stay behind.
KEEP = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)
NEEDED = ("config.json", "processor_config.json", "tokenizer_config.json")


class ExportError(RadioVLMError):
    """The source is not a checkpoint that can be handed over; the message names the file."""


def write_remote_code(model, processor, folder: str | Path) -> list[Path]:
    """Write the code of a model and its processor into `folder`, flat, and the `auto_map`s. Returns the paths.

    Either may be None. Parts in their own right (the image processor) are found through the processor's attributes.
    """
    objects = [model, processor, getattr(processor, "image_processor", None)]
    written: dict[Path, None] = {}
    for item in objects:
        if item is not None:
            entry = Path(sys.modules[type(item).__module__].__file__)
            written |= dict.fromkeys(write_code(folder, entry, item.remote_code_parts()))
    return sorted(written)


def export(model_dir: str | Path, out_dir: str | Path, results: str | Path | None = None) -> Path:
    """Write the checkpoint `model_dir` (folder or hub id) to `out_dir`, self-contained and with a model card.

    Weights are copied byte for byte, never loaded. `results`: a results.json for the card; default: one in `model_dir`
    or beside it. Returns `out_dir`. Raises `ExportError` for a folder without the files of a whole checkpoint.
    """
    source, out = resolve_folder(model_dir), Path(out_dir)
    config = read_config(source)
    missing = [name for name in NEEDED if not (source / name).is_file()]
    if missing or not list(source.glob("model*.safetensors")):
        raise ExportError(f"{source} is not a whole checkpoint: no {', '.join(missing) or 'model*.safetensors'}")
    if out.resolve() == source.resolve():
        raise ExportError(f"{out} is the checkpoint itself; give another folder to export to")
    clear(out)
    for path in sorted({path for pattern in KEEP for path in source.glob(pattern) if path.is_file()}):
        target = out / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    write_class_code(config, out)
    found = find_results(source, results)
    card = model_card(json.loads((out / "config.json").read_text()), found, name=out.resolve().name)
    (out / "README.md").write_text(card, encoding="utf-8")
    check_folder(out)
    logger.info("exported %s to %s", source, out)
    return out


def clear(out: Path, read: Callable[[Path], dict] | None = None) -> None:
    """Make `out`, or take an earlier export away from it (shards may change names); any other content is refused.

    `read` knows an earlier export by its config (default: that of a VLM), or raises `ExportError`.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        try:
            (read or read_config)(out)
        except ExportError as error:
            raise ExportError(f"{out} is not empty and holds no earlier export; give another folder") from error
    for path in {path for pattern in (*KEEP, "*.py") for path in out.glob(pattern) if path.is_file()}:
        path.unlink()


def write_class_code(config: dict, folder: Path) -> None:
    """`write_remote_code` for a checkpoint that is not loaded: only its config is known."""
    import vlm.image_processing_radio_vlm
    import vlm.modeling_radio_vlm
    import vlm.processing_radio_vlm
    from projectors.components import static_source

    generated = {"components.py": static_source(config["projector_config"]["type"])}
    for module in (vlm.modeling_radio_vlm, vlm.processing_radio_vlm, vlm.image_processing_radio_vlm):
        write_code(folder, Path(module.__file__), generated)


def resolve_folder(model_dir: str | Path) -> Path:
    """A local folder as it is; anything else is a hub id and is downloaded."""
    if Path(model_dir).is_dir():
        return Path(model_dir)
    if str(model_dir).startswith((".", "/", "~")) or str(model_dir).count("/") != 1:
        raise ExportError(f"no folder {model_dir}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model_dir)))
    except Exception as error:
        raise ExportError(f"{model_dir} is neither a folder nor a hub id that can be fetched: {error}") from error


def read_config(folder: Path) -> dict:
    """config.json of a RADIO-VLM checkpoint as a dict; `ExportError` for any other model."""
    path = folder / "config.json"
    if (folder / "adapter_config.json").is_file() and not path.is_file():
        raise ExportError(f"{folder} is an adapter: export what `radio-vlm merge {folder} OUT` makes of it")
    if not path.is_file():
        raise ExportError(f"{folder} has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ExportError(f"{path} is not JSON: {error}") from error
    if config.get("model_type") != "radio_vlm":
        raise ExportError(
            f"{path} is a `{config.get('model_type')}` model; only `radio_vlm` checkpoints and RADIO encoders are "
            "exported"
        )
    return config


def find_results(source: Path, results: str | Path | None) -> dict | None:
    """The results.json for the card: the one given, else one in the checkpoint's folder or the folder above."""
    if results is not None:
        if not Path(results).is_file():
            raise ExportError(f"no results file {results}")
        return json.loads(Path(results).read_text(encoding="utf-8"))
    for path in (source / "results.json", source.resolve().parent / "results.json"):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def check_folder(folder: Path) -> None:
    """Everything the Auto classes will ask for is there and flat; raises `ExportError` or `NotExportableError`."""
    write_auto_maps(folder)
    present = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {})
    lost = sorted(set(CONFIG_AUTO_MAP) - set(present))
    if lost:
        raise ExportError(f"{folder}: no code for {', '.join(lost)}")
    for path in folder.glob("*_radio_vlm.py"):
        for name, text in collect_code(path).items():
            if (folder / name).read_text(encoding="utf-8") != text:
                raise ExportError(f"{folder / name} still has imports that need radio-vlm installed")
