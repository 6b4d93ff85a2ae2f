"""The results file: figures, every answer, and all that is needed to repeat or doubt them.

One JSON a run: `{"format", "model", "provenance", "tasks": {key: figures}, "samples": [row, …]}`. It is written under a
temporary name first, so that a killed run never leaves half a file.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from eval.data import Dataset

FORMAT = 1
_PACKAGES = (
    *("radio-vlm", "torch", "transformers", "accelerate", "numpy", "pillow", "av", "pydicom", "scipy", "datasets"),
    *("sacrebleu", "rouge-score"),
)


def write_json(value: Any, path: str | Path) -> None:
    """Writes `value` to `path` at once; the folder is made if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    draft.write_text(text, encoding="utf-8", errors="backslashreplace")  # half a surrogate pair, as JSON writes it
    draft.replace(path)


def versions() -> dict[str, str]:
    """Python and the packages that touch a score; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the checkout this code runs from, "-dirty" if files differ; None outside a repository."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None  # an installed package inside somebody else's repository
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """What the seconds were measured on."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def describe_model(model: Any, processor: Any) -> dict[str, Any]:
    """Parameters by part, and the geometry and template that decided what the model was shown."""
    config = model.config
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".", 1)[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    tokenizer = getattr(processor, "tokenizer", processor)  # a text-only model has no other processor
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    return {
        "class": type(model).__name__,
        "parameters": sum(parts.values()),
        "parts": parts,
        "dtype": str(getattr(model, "dtype", "")).removeprefix("torch."),
        "vision": _sizes(getattr(config, "vision_config", None)),
        "text": _sizes(getattr(config, "text_config", None)),
        "projector": getattr(config, "projector_config", None),
        # the processor's: what pictures were really shown as, settings of the command line included
        "geometry": getattr(getattr(processor, "image_processor", None), "geometry", None)
        or getattr(config, "geometry", None),
        "video": getattr(processor, "video", None) or getattr(config, "video", None),
        "chat_template": template if isinstance(template, str) else None,
    }


def _sizes(config: Any) -> dict[str, Any] | None:
    names = ("model_type", "hidden_size", "num_hidden_layers", "patch_size", "vocab_size", "layers_block_type")
    return {n: getattr(config, n) for n in names if hasattr(config, n)} if config is not None else None


def describe_dataset(dataset: Dataset, asked: int) -> dict[str, Any]:
    """Which questions these were: the file, its hash, and what the folder says of itself."""
    about = {"path": str(dataset.path), "file": dataset.file.name, "sha256": dataset.digest, "asked": asked}
    return {**dataset.info, **about}


def provenance(command: list[str], seed: int, batch_size: int, processes: int = 1) -> dict[str, Any]:
    """What does not depend on the task."""
    return {
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "batch_size": batch_size,
        "processes": processes,
        "decoding": {"do_sample": False, "num_beams": 1},
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": machine(),
    }
