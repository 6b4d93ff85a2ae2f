"""Hand-over of an encoder by itself: any RADIO checkpoint becomes a folder that opens where radio-vlm is not installed.

A plain backbone is written in transformers' own layout and needs no code. One with windows, normalizers or teacher
heads carries the code of `encoders.radio_vision`, as the native class would open it and drop them without a word.
"""

import json
import logging
from pathlib import Path

import encoders.radio_vision
from encoders.checkpoint_sources import open_checkpoint
from encoders.errors import RadioCheckpointError
from encoders.radio_encoder import RadioEncoder
from encoders.versions import RELEASES
from vlm.export import ExportError, clear
from vlm.model_card import licence_of
from vlm.self_contained import write_code

logger = logging.getLogger(__name__)

TYPES = ("radio", "radio_encoder")


def is_encoder(source: str | Path) -> bool:
    """Whether `source` names a RADIO encoder (a folder, file, hub id or release) rather than a whole VLM."""
    path = Path(source)
    if path.is_file() or str(source).lower() in RELEASES:
        return True
    if path.is_dir():
        hub_files = not (path / "config.json").is_file() and any(path.glob("*.pth.tar"))
        return hub_files or _encoder_config(path) is not None
    try:
        open_checkpoint(source)
    except RadioCheckpointError:
        return False
    return True


def _encoder_config(folder: Path) -> dict | None:
    """config.json of `folder` if it is that of a RADIO encoder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(config, dict) and (config.get("model_type") in TYPES or isinstance(config.get("args"), dict))
    return config if ours else None


def read_encoder_config(folder: Path) -> dict:
    """config.json of an encoder that was exported or saved by `RadioEncoder`; `ExportError` for anything else."""
    config = _encoder_config(folder)
    if config is None:
        raise ExportError(f"{folder} has no config.json of a RADIO encoder")
    return config


def export_encoder(source: str | Path, out_dir: str | Path, adaptors: list[str] | None = None) -> Path:
    """Open the encoder `source` in full, write it to `out_dir` with its code, if it needs any, and a card.

    `adaptors`: teacher heads to take along; None: those that the folder names. Returns `out_dir`. Raises `ExportError`.
    """
    out = Path(out_dir)
    if Path(source).exists() and out.resolve() == Path(source).resolve():
        raise ExportError(f"{out} is the checkpoint itself; give another folder to export to")
    try:
        encoder = RadioEncoder.from_pretrained(str(source), adaptors=adaptors)
    except ValueError as error:
        raise ExportError(str(error)) from error
    clear(out, read_encoder_config)
    encoder.save_pretrained(out)
    if not encoder.config.is_native:
        write_code(out, Path(encoders.radio_vision.__file__))
        path = out / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {"architectures": ["RadioVisionModel"]}
        path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "README.md").write_text(encoder_card(encoder, out.resolve().name), encoding="utf-8")
    logger.info("exported %s", encoder.report)
    return out


def encoder_card(encoder: RadioEncoder, name: str) -> str:
    """The README.md of an exported encoder."""
    config, report = encoder.config, encoder.report
    licence, sentence = licence_of(Path(report.origin).name, report.release)
    trust = "" if config.is_native else ", trust_remote_code=True"
    facts = [
        f"Width {config.hidden_size}, {config.num_hidden_layers} blocks, {config.patch_size}-pixel patches; both sides "
        f"of a picture are multiples of {config.min_resolution_step} pixels.",
    ]
    if config.vitdet_window_size:
        facts.append(f"Most blocks attend inside windows of {config.vitdet_window_size} x {config.vitdet_window_size}.")
    if config.adaptors:
        facts.append(f"Teacher heads: {', '.join(config.adaptors)} (`out.adaptors[name].summary`, `.features`).")
    if report.heads_left_out:
        facts.append(f"Left in the source: the heads of {', '.join(report.heads_left_out)}.")
    use = (
        "```python\nfrom transformers import AutoModel\n\n"
        f"encoder = AutoModel.from_pretrained(folder{trust}).eval()\n"
        "out = encoder(pixel_values)  # (B, 3, H, W) in [0, 1], not normalised: out.summary, out.features\n```"
    )
    sections = [
        f"---\nlibrary_name: transformers\nlicense: other\nlicense_name: {licence or 'unknown'}\n"
        "tags:\n- radio\n- feature-extraction" + ("\n- custom_code" if trust else "") + "\n---",
        f"# {name}",
        f"A RADIO vision encoder ({config.version or 'release not known'}), written by radio-vlm.",
        "\n".join(facts),
        f"## Use\n\n`folder` is this folder or its hub id.\n\n{use}",
        f"## Licences\n\n- {sentence}" + ("\n- Code in this folder: Apache-2.0." if trust else ""),
    ]
    return "\n\n".join(sections) + "\n"
