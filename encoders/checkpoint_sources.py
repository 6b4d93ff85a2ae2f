"""Finds a RADIO checkpoint and says what it is: a folder, a file, a Hugging Face id or the name of a release.

Nothing is built here and no weight is read: the result holds the config or training arguments as they are stored, and
the tensors under their stored names, to be read one at a time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers.utils.hub import cached_file, is_offline_mode

from encoders.errors import RadioCheckpointError
from encoders.hub_pickle import HubTensors, load_hub_file
from encoders.tensor_files import TensorFiles, TensorReader

CONFIG = "config.json"
# in order of preference, as transformers has it
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
PICKLES = (".tar", ".pth", ".pt", ".bin", ".ckpt")
KINDS = {"radio": "native", "radio_encoder": "ours"}


@dataclass(frozen=True, kw_only=True)
class RadioCheckpoint:
    """An opened checkpoint.

    Attributes:
        kind: "native" (transformers' own layout), "ours" (`radio_encoder`), "remote_code" (a config with the training
            arguments), "hub" (a torch.hub file).
        origin: where it was found, for messages.
        tensors: stored name -> tensor; of hub files without `module.`.
        config: `config.json`; {} for hub files.
        args: the training arguments of kinds "remote_code" and "hub", else {}.
        ema: the weights are a hub file's `state_dict_ema`; the reference expects no spectral norms there then.
        name: what the user gave, or the release it stands for: what tells the version.
    """

    kind: str
    origin: str
    tensors: TensorReader
    config: dict[str, Any] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)
    ema: bool = False
    name: str = ""


class _Folder:
    """Files of a local folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.origin = path, str(path)

    def find(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.is_file() else None

    def pickles(self) -> list[str]:
        """Hub files, for a folder that holds nothing else."""
        return sorted(p.name for p in self.path.iterdir() if p.name.endswith((".pth.tar", ".pth")) and p.is_file())

    def looked_for(self) -> str:
        return ", ".join(sorted(p.name for p in self.path.iterdir())[:20]) or "nothing"


class _Repository:
    """Files of a repository on the Hugging Face hub, through its cache."""

    def __init__(self, hub_id: str, hub_kwargs: Mapping[str, Any]) -> None:
        self.hub_id, self.kwargs, self.origin = hub_id, dict(hub_kwargs), hub_id

    def find(self, name: str) -> Path | None:
        try:
            found = cached_file(self.hub_id, name, _raise_exceptions_for_missing_entries=False, **self.kwargs)
        except (OSError, ValueError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise RadioCheckpointError(f"{self.hub_id}: {name} cannot be fetched: {first}") from None
        return Path(found) if found else None

    def pickles(self) -> list[str]:
        return []

    def looked_for(self) -> str:
        if is_offline_mode() or self.kwargs.get("local_files_only"):
            return f"what the Hugging Face cache has of {self.hub_id}, as nothing may be downloaded (offline)"
        return f"what the hub gave for {self.hub_id} (is there a network, is the id right, may you read it?)"


def open_checkpoint(source: str | Path, filename: str | None = None, **hub_kwargs: Any) -> RadioCheckpoint:
    """Opens a checkpoint of any kind.

    Args:
        source: a folder, a file, a Hugging Face id (`nvidia/C-RADIOv4-H`) or a release (`c-radio_v4-h`).
        filename: one file of that folder or repository instead of the one chosen by itself, such as
            `c-radio_v4-h_half.pth.tar`, which has the teachers' heads.
        hub_kwargs: `revision`, `cache_dir`, `token`, `local_files_only`, ... for Hugging Face ids.

    Raises:
        RadioCheckpointError: nothing is there, or it is damaged, or no RADIO. The message says what was looked for.
    """
    name, path = str(source), Path(source).expanduser()
    if path.is_file():
        return _open_file(path, name)
    if name and path.is_dir():
        return _open_files(_Folder(path / hub_kwargs.get("subfolder", "")), name, filename)
    release = _release(name)
    hub_id = name
    if release is not None:
        if release.unsupported:
            raise RadioCheckpointError(f"release '{name}' is not supported yet: {release.unsupported}")
        if release.hub_id is None:
            raise RadioCheckpointError(
                f"release '{name}' has no Hugging Face repository of its own; give the path of its .pth.tar file"
            )
        hub_id = release.hub_id
    if not _may_be_id(hub_id):
        raise RadioCheckpointError(f"there is no folder or file '{name}', and it cannot be a Hugging Face id")
    return _open_files(_Repository(hub_id, hub_kwargs), name, filename)


def _release(name: str) -> Any | None:
    """The release of that exact name in the resource table, if any."""
    from encoders.versions import RELEASES

    return RELEASES.get(name.lower())


def _may_be_id(name: str) -> bool:
    """`owner/name`, or `name` alone; what looks like a path of a file or folder is none."""
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or name.endswith((*PICKLES, ".safetensors")):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _open_files(place: _Folder | _Repository, name: str, filename: str | None) -> RadioCheckpoint:
    """A folder or repository: its config decides the kind."""
    if filename is not None:
        path = place.find(filename)
        if path is None:
            raise RadioCheckpointError(f"{place.origin} has no {filename}; looked at {place.looked_for()}")
        return _open_file(path, name, place)
    config_path = place.find(CONFIG)
    if config_path is None:
        pickles = place.pickles()
        if len(pickles) == 1:
            return _open_file(place.find(pickles[0]), name)
        if pickles:
            raise RadioCheckpointError(f"{place.origin} has several checkpoints: choose one of {', '.join(pickles)}")
        raise RadioCheckpointError(
            f"'{name}' is no RADIO checkpoint: no folder or file of that name with a {CONFIG} or .pth.tar; "
            f"looked at {place.looked_for()}"
        )
    config = read_config(config_path)
    kind = _kind(config, config_path)
    for weights in WEIGHTS:
        path = place.find(weights)
        if path is not None:
            tensors = _open_weights(path, place)
            return RadioCheckpoint(
                kind=kind, origin=place.origin, tensors=tensors, config=config, args=_args(config), name=name
            )
    raise RadioCheckpointError(f"{place.origin} has a {CONFIG}, but none of {', '.join(WEIGHTS)}")


def _open_file(path: Path, name: str, place: _Folder | _Repository | None = None) -> RadioCheckpoint:
    """A single file: a torch.hub checkpoint, or weights with their config beside them."""
    if path.name.endswith(PICKLES):
        content = load_hub_file(path)
        if any(key in content for key in ("state_dict", "state_dict_ema")) and "args" in content:
            return _hub(path, content, name)
    elif not path.name.endswith((".safetensors", ".safetensors.index.json", ".bin.index.json")):
        raise RadioCheckpointError(f"{path} is no checkpoint: .safetensors or {', '.join(PICKLES)} are")
    place = place or _Folder(path.parent)
    config_path = place.find(CONFIG)
    if config_path is None:
        what = "has no training arguments (`args`)" if path.name.endswith(PICKLES) else "holds weights only"
        raise RadioCheckpointError(f"{path} {what}, and there is no {CONFIG} beside it to say what it is")
    config = read_config(config_path)
    kind = _kind(config, config_path)
    tensors = _open_weights(path, place)
    return RadioCheckpoint(kind=kind, origin=str(path), tensors=tensors, config=config, args=_args(config), name=name)


def _hub(path: Path, content: dict, name: str) -> RadioCheckpoint:
    """A torch.hub file: weights of the moving average if it has them."""
    ema = content.get("state_dict_ema") is not None
    key = "state_dict_ema" if ema else "state_dict"
    tensors = HubTensors(path, _state(path, key, content[key]))
    args = content["args"]
    if not isinstance(args, Mapping):
        if not hasattr(args, "__dict__"):
            raise RadioCheckpointError(f"{path}: `args` is a {type(args).__name__}, not a namespace")
        args = vars(args)
    return RadioCheckpoint(kind="hub", origin=str(path), tensors=tensors, args=dict(args), ema=ema, name=name)


def _state(path: Path, key: str, state: Any) -> dict[str, torch.Tensor]:
    """A state dict of tensors without the prefix that data-parallel training puts before every name."""
    if not isinstance(state, Mapping) or not state:
        raise RadioCheckpointError(f"{path}: `{key}` is not a dict of weights")
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise RadioCheckpointError(f"{path}: `{key}` holds a {type(tensor).__name__} under {name!r}, no tensor")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise RadioCheckpointError(f"{path}: weight '{name}' is sparse or quantised, which is not supported")
        short = name.removeprefix("module.")
        if short in plain:
            raise RadioCheckpointError(f"{path}: weight '{short}' is there with and without `module.`")
        plain[short] = tensor
    return plain


def read_config(path: Path) -> dict[str, Any]:
    """A `config.json`, or an error that names it."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RadioCheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise RadioCheckpointError(f"{path} is not a JSON object")
    return config


def _args(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config.get("args") or {})


def _kind(config: Mapping[str, Any], path: Path) -> str:
    """What a config describes: its `args` make it the remote code's, else its type decides."""
    if "args" in config:
        if not isinstance(config["args"], Mapping):
            raise RadioCheckpointError(f"{path}: `args` is not an object")
        return "remote_code"
    model_type = config.get("model_type")
    if model_type in KINDS:
        return KINDS[model_type]
    raise RadioCheckpointError(
        f"{path} is not that of a RADIO encoder: its model_type is {model_type!r}, and it has no `args`. "
        f"Known are {', '.join(KINDS)} and configs of RADIO's remote code"
    )


def _open_weights(path: Path, place: _Folder | _Repository) -> TensorReader:
    """The tensors of a weight file or of all the shards that an index names."""
    if not path.name.endswith(".index.json"):
        if path.name.endswith(".safetensors"):
            return TensorFiles([path])
        return HubTensors(path, _state(path, path.name, load_hub_file(path)))
    index = read_index(path)
    shards = {}
    for shard in dict.fromkeys(index.values()):
        shards[shard] = place.find(shard)
        if shards[shard] is None:
            raise RadioCheckpointError(f"{path} names the shard {shard}, which {place.origin} does not have")
    if not all(shard.endswith(".safetensors") for shard in shards):
        raise RadioCheckpointError(f"{path}: shards that are pickles are not supported; save as safetensors")
    return TensorFiles(shards.values(), index=index)


def read_index(path: Path) -> dict[str, str]:
    """Weight name -> shard of an index file. A shard's name may not lead out of the folder."""
    weight_map = read_config(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise RadioCheckpointError(f"{path} has no `weight_map`")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard or "\\" in shard or shard in ("", ".."):
            raise RadioCheckpointError(f"{path}: the shard {shard!r} of weight '{name}' is not a file of its folder")
    return weight_map
