"""An adapter folder on disk: what `peft` reads, and from which weights it was trained.

adapter_config.json and adapter_model.safetensors are peft's own format: low-rank factors, and in full everything else
that trained (`modules_to_save`: the projector, an unfrozen encoder; `trainable_token_indices`: rows of new tokens).
adapter_base.json names the base and a fingerprint of its weights, so that another base is refused. There is no
config.json: transformers would take the folder for a whole model.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import cached_file

from vlm.errors import RadioVLMError

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "adapter_base.json"
PREFIX = "base_model.model."  # peft's own, before every name of the wrapped model
ROWS = ".token_adapter.trainable_tokens_delta"  # peft's name for the rows of an embedding table
_SAMPLE = 4096  # bytes at each end of a tensor that go into the fingerprint


@dataclass(frozen=True)
class AdapterBase:
    """The model below an adapter: folder or hub id, commit on the hub, fingerprint of the weights (None: unknown)."""

    name: str
    revision: str | None = None
    fingerprint: str | None = None


def find_file(source: str | os.PathLike, name: str, **hub) -> Path | None:
    """A file of a folder or of a hub repository (`hub`: revision, token, cache_dir, ...); None if it has none."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    found = cached_file(
        str(source), name, **hub,
        _raise_exceptions_for_gated_repo=False, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    return None if found is None else Path(found)


def is_adapter(source: str | os.PathLike, **hub) -> bool:
    """Whether a folder (or hub id) holds an adapter and no whole model."""
    try:
        return find_file(source, CONFIG, **hub) is not None and find_file(source, "config.json", **hub) is None
    except OSError:
        return False


def read_base(source: str | os.PathLike, **hub) -> AdapterBase:
    """Base of an adapter; of one that other tools wrote only the name is known.

    Raises:
        RadioVLMError: no adapter there, or one that names no base.
    """
    config = find_file(source, CONFIG, **hub)
    if config is None:
        raise RadioVLMError(f"{source} holds no adapter: there is no {CONFIG}")
    ours = find_file(source, BASE, **hub)
    known = json.loads(ours.read_text(encoding="utf-8")) if ours else {}
    name = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not name:
        raise RadioVLMError(f"{config}: base_model_name_or_path is empty: write the base's folder or hub id there")
    names = {field.name for field in fields(AdapterBase)}
    return AdapterBase(**{key: value for key, value in known.items() if key in names} | {"name": name})


def whole_model(name: str) -> str:
    """The model below an adapter folder; any other model itself.

    Raises RadioVLMError where the adapter's base was a folder that is not there any more.
    """
    if not is_adapter(name):
        return name
    base = read_base(name).name
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise RadioVLMError(
            f"--model: {name} is an adapter of {base}, which is not there: put that model back, or merge with "
            f"`radio-vlm merge {name} OUT --base DIR`"
        )
    return base


def base_of(name: str, revision: str | None = None) -> AdapterBase:
    """The reference to write for an adapter of the model `name` (folder, made absolute, or hub id)."""
    if Path(name).is_dir():
        return AdapterBase(str(Path(name).resolve()), None, weight_fingerprint(name))
    commit = commit_of(name, revision)
    return AdapterBase(name, commit, weight_fingerprint(name, revision=commit or revision))


def commit_of(name: str, revision: str | None = None) -> str | None:
    """The commit that a revision (None: the newest) of a hub repository stands for, by where the cache keeps it."""
    config = find_file(name, "config.json", revision=revision)
    return config.parent.name if config is not None and config.parent.parent.name == "snapshots" else None


def write_base(folder: Path, base: AdapterBase) -> None:
    """Write adapter_base.json."""
    (folder / BASE).write_text(json.dumps(asdict(base), indent=1) + "\n", encoding="utf-8")


def check_base(adapter: str, wanted: AdapterBase, name: str, **hub) -> None:
    """Raise RadioVLMError if the weights of model `name` are not those below the adapter."""
    if wanted.fingerprint is None:
        return
    found = weight_fingerprint(name, **hub)
    if found is not None and found != wanted.fingerprint:
        raise RadioVLMError(
            f"the adapter {adapter} was trained on other weights than those of {name}: its base was {wanted.name}"
            + (f" at revision {wanted.revision}" if wanted.revision else "")
            + f" with fingerprint {wanted.fingerprint[:12]}, this one has {found[:12]}; give it the model it was "
            "trained on"
        )


def weight_fingerprint(source: str, **hub) -> str | None:
    """SHA-256 over names, types, shapes and both ends of every tensor of a checkpoint; None without safetensors.

    Does not depend on how the tensors are spread over files, and reads a few kB a tensor, so it costs seconds for a
    model of any size; a model that trained on differs in nearly every tensor.
    """
    described: dict[str, str] = {}
    for path in _weight_files(source, **hub):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise RadioVLMError(f"{path} is no whole safetensors file: it is torn, or a git LFS pointer")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, tensor in header.items():
                start, end = (8 + length + offset for offset in tensor["data_offsets"])
                digest = hashlib.sha256(f"{tensor['dtype']}{tensor['shape']}".encode())
                for position in sorted({start, max(start, end - _SAMPLE)}):
                    file.seek(position)
                    digest.update(file.read(min(_SAMPLE, end - position)))
                described[name] = digest.hexdigest()
    if not described:
        return None
    return hashlib.sha256(json.dumps(sorted(described.items())).encode()).hexdigest()


def _weight_files(source: str, **hub) -> list[Path]:
    single = find_file(source, "model.safetensors", **hub)
    if single is not None:
        return [single]
    index = find_file(source, "model.safetensors.index.json", **hub)
    if index is None:
        return []
    names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return [path for name in names if (path := find_file(source, name, **hub)) is not None]


def read_weights(source: str, **hub) -> dict:
    """Name without peft's prefix -> tensor of adapter_model.safetensors, on the CPU."""
    from safetensors.torch import load_file

    path = find_file(source, WEIGHTS, **hub)
    if path is None:
        raise RadioVLMError(f"{source} has no {WEIGHTS}: the adapter is not complete")
    try:
        return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise RadioVLMError(f"{path} cannot be read: {error}") from error
