"""Adapters in a model: loading an adapter folder onto its base, saving one, merging.

The low-rank factors are peft layers put into the model in place; what trained in full (projector, encoder, rows of new
tokens) is simply the model's own weights. So names, forward, sharding and packing stay those of the plain model, and
nothing that trained can be forgotten on saving: the folder is peft's format with all of it (`vlm/adapter_folder.py`).
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from vlm.adapter_folder import (
    PREFIX,
    ROWS,
    WEIGHTS,
    AdapterBase,
    check_base,
    find_file,
    is_adapter,
    read_base,
    read_weights,
    write_base,
)
from vlm.errors import RadioVLMError

HUB_OPTIONS = ("cache_dir", "local_files_only", "token", "revision")
NAME = "default"  # peft's name of the only adapter


@dataclass
class AdapterRecord:
    """What besides the low-rank factors belongs to a model's adapter."""

    base: AdapterBase
    modules: list[str] = field(default_factory=list)
    """Modules whose weights trained in full."""
    rows: dict[str, list[int]] = field(default_factory=dict)
    """Embedding module -> rows that trained; a tied head stands here too, since peft would not think of it."""


def _peft():
    try:
        import peft
    except ImportError as error:
        raise RadioVLMError(f"adapters need peft ({error}): pip install peft") from error
    return peft


def inject(model: nn.Module, config, base: AdapterBase) -> None:
    """Put the low-rank layers of a `peft.LoraConfig` into the model in place; modules_to_save and
    trainable_token_indices become a record of which of the model's own weights belong to the adapter."""
    config = copy.copy(config)
    modules, rows = list(config.modules_to_save or ()), dict(config.trainable_token_indices or {})
    config.modules_to_save = config.trainable_token_indices = None
    _peft().inject_adapter_in_model(config, model, NAME)
    model.peft_config = {NAME: config}
    model._hf_peft_config_loaded = True
    model.adapter_record = AdapterRecord(base, modules, rows)


def record_of(model: nn.Module) -> AdapterRecord | None:
    """The adapter record of a model, None without an adapter."""
    return getattr(model, "adapter_record", None)


def tables_of(model: nn.Module) -> list[str]:
    """Names of the input embedding module and, if it shares its weight, of the output head."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = [table] + [head] * (head is not None and head.weight is table.weight)
    return [next(name for name, found in model.named_modules() if found is module) for module in tied]


def file_names(model: nn.Module) -> dict[str, tuple[str, list[int] | None]]:
    """Name in adapter_model.safetensors (without peft's prefix) -> `(name in the model, its rows or None for all)`."""
    record = record_of(model)
    found: dict[str, tuple[str, list[int] | None]] = {}
    for name in model.state_dict():
        if ".lora_" in name and f".{NAME}." in name:
            found[name.replace(f".{NAME}.", ".")] = (name, None)
        elif any(name.startswith(f"{module}.") for module in record.modules):
            found[name] = (name, None)
    tied = tables_of(model)
    for module, rows in record.rows.items():
        found[module + ROWS] = (f"{tied[0] if module in tied else module}.weight", rows)
    return found


@contextlib.contextmanager
def whole(tensors: Iterable[torch.Tensor], write: bool = False) -> Iterator[None]:
    """Inside, parameters that ZeRO-3 keeps in pieces are whole; collective. `write`: rank 0's changes are kept."""
    sharded = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not sharded:
        yield
        return
    try:
        from deepspeed.runtime.zero import GatheredParameters
    except ImportError as error:  # cannot be: it sharded them
        raise RadioVLMError(f"weights in shards need deepspeed: {error}") from error
    with GatheredParameters(sharded, modifier_rank=0 if write else None):
        yield


@torch.no_grad()
def load_weights(model: nn.Module, source: str, **hub) -> None:
    """Fill the adapter of `model` (its layers are in place) from a folder or hub id; also ZeRO-3's shards.

    Raises:
        RadioVLMError: a weight is missing, unexpected or of another shape; nothing has been changed then.
    """
    stored, wanted = read_weights(source, **hub), file_names(model)
    own = model.state_dict(keep_vars=True)
    problems = [f"missing: {name}" for name in sorted(wanted.keys() - stored.keys())]
    problems += [f"unexpected: {name}" for name in sorted(stored.keys() - wanted.keys())]
    for name in wanted.keys() & stored.keys():
        target, rows = wanted[name]
        shape = list(getattr(own[target], "ds_shape", own[target].shape))
        shape = shape if rows is None else [len(rows), *shape[1:]]
        if shape != list(stored[name].shape):
            problems.append(f"shape: {name} is {list(stored[name].shape)}, the model's {shape}")
    if problems:
        listed = "; ".join(problems[:6]) + " ..." * (len(problems) > 6)
        raise RadioVLMError(
            f"the adapter in {source} does not fit its base model ({listed}); nothing was filled with random numbers: "
            "check that the folder is complete and the base is the one it was trained on"
        )
    for name, (target, rows) in wanted.items():
        tensor = own[target]
        with whole([tensor], write=True):
            if not tensor.numel():
                continue  # a rank that holds no part of it
            place = tensor if rows is None else torch.tensor(rows, device=tensor.device)
            value = stored[name].to(tensor.device, tensor.dtype)
            tensor.copy_(value) if rows is None else tensor.index_copy_(0, place, value)


def trained_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that an adapter folder holds, by their names in the model, whole and on the CPU. Under ZeRO-3 every
    rank must call it; one tensor at a time is gathered."""
    own, found = model.state_dict(keep_vars=True), {}
    for target, _ in file_names(model).values():
        with whole([own[target]]):
            found[target] = own[target].detach().to("cpu", copy=True)
    return found


def save_adapter(model: nn.Module, folder: str | Path, state_dict: dict | None = None) -> None:
    """Write the adapter folder. state_dict: of the model or of what trained (default: the model's own)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record, config = record_of(model), copy.copy(model.peft_config[NAME])
    state_dict = model.state_dict() if state_dict is None else state_dict
    tensors = {}
    for name, (target, rows) in file_names(model).items():
        if target not in state_dict:
            raise RadioVLMError(f"cannot save the adapter to {folder}: the state given has no {target}")
        value = state_dict[target]
        value = value if rows is None else value[torch.tensor(rows, device=value.device)]
        tensors[PREFIX + name] = value.detach().to("cpu", copy=True).contiguous()
    from safetensors.torch import save_file

    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config.base_model_name_or_path, config.revision = record.base.name, record.base.revision
    config.modules_to_save = list(record.modules) or None
    config.trainable_token_indices = dict(record.rows) or None
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    write_base(folder, record.base)


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Add the low-rank products to the weights they stand beside and take the adapter's layers out, in place.

    Raises:
        RadioVLMError: the model has no adapter, or its base is quantized (rounding again would lose the adapter).
    """
    if record_of(model) is None:
        raise RadioVLMError(f"{type(model).__name__} has no adapter to merge")
    if getattr(model, "is_quantized", False):
        raise RadioVLMError("a quantized base cannot take an adapter up: load the base without quantization to merge")
    merged: set[int] = set()
    for name, module in list(model.named_modules()):  # a shared layer comes once, as its parent does
        if not isinstance(getattr(module, "lora_A", None), nn.ModuleDict):
            continue
        layer = module.get_base_layer()
        if id(layer.weight) not in merged:  # layers that share a weight (Zamba2 from disk) hold copies of one adapter
            module.merge(safe_merge=True, adapter_names=[NAME])
            merged.add(id(layer.weight))
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    del model.peft_config, model.adapter_record
    model._hf_peft_config_loaded = False
    return model


class AdapterMixin:
    """`from_pretrained` of an adapter folder, `load_adapter` and `save_pretrained` for models with adapters."""

    loaded_revision: str | None = None
    """The revision `from_pretrained` was given, of a model from the hub: its files are looked at again for adapters."""

    @classmethod
    def split_adapter(cls, source, kwargs: dict) -> tuple[str, dict | None]:
        """`(model to load, arguments of load_adapter or None)`; the Auto classes have looked already, and say so in
        `adapter_kwargs`, which is taken out of `kwargs`."""
        given = dict(kwargs.pop("adapter_kwargs", None) or {})
        hub = {key: kwargs[key] for key in HUB_OPTIONS if kwargs.get(key)}
        adapter = given.pop("_adapter_model_path", None)
        if adapter is not None:
            known = {key: value for key, value in (hub | given).items() if key in HUB_OPTIONS}
            cls._go_back(source, read_base(adapter, **known), kwargs)
            return source, {"peft_model_id": str(adapter)} | known
        if source is not None and kwargs.get("config") is None and is_adapter(source, **hub):
            base = read_base(source, **hub)
            kwargs.pop("revision", None)  # the adapter's, not the base's
            kwargs |= {"revision": base.revision} if base.revision else {}
            return base.name, {"peft_model_id": str(source)} | hub
        return source, None

    @staticmethod
    def _go_back(source, base: AdapterBase, kwargs: dict) -> None:
        """The Auto classes have read the base's newest config: let config and weights be those below the adapter."""
        config = kwargs.get("config")
        if source != base.name or not base.revision or Path(source).is_dir():
            return
        kwargs["revision"] = base.revision
        if config is not None:  # what the caller asked of it is kept
            del kwargs["config"]
            parts = {"": config, **{name: getattr(config, name) for name in config.sub_configs}}
            kwargs["attn_implementation"] = {name: part._attn_implementation for name, part in parts.items()}

    def load_adapter(self, peft_model_id: str, *args, is_trainable: bool = False, **kwargs):
        """Put an adapter folder (or hub id) onto this model, its base: low-rank layers, and what trained in full over
        the model's own weights.

        Raises:
            RadioVLMError: the adapter was trained on other weights, is incomplete, or there is an adapter already.
        """
        hub = {key: kwargs[key] for key in HUB_OPTIONS if kwargs.get(key)}
        if record_of(self) is not None:
            raise RadioVLMError(f"cannot load the adapter {peft_model_id}: the model has one; merge it first")
        base = read_base(peft_model_id, **hub)
        check_base(peft_model_id, base, self.name_or_path, **hub | {"revision": self.loaded_revision})
        config = _peft().PeftConfig.from_pretrained(str(find_file(peft_model_id, "adapter_config.json", **hub).parent))
        if config.peft_type != "LORA":
            raise RadioVLMError(f"{peft_model_id} is a {config.peft_type} adapter; only LORA can be loaded")
        config.inference_mode = not is_trainable
        inject(self, config, base)
        load_weights(self, peft_model_id, **hub)
        return self

    def load_state_dict(self, state_dict, strict: bool = True, **kwargs):
        """As in torch; with an adapter the base may be absent (small checkpoints leave it out), the adapter may not."""
        if record_of(self) is None:
            return super().load_state_dict(state_dict, strict=strict, **kwargs)
        missing = {name for name, _ in file_names(self).values()} - state_dict.keys()
        if strict and missing:
            raise RadioVLMError(f"the state to load has no {', '.join(sorted(missing)[:6])}, which the adapter needs")
        return super().load_state_dict(state_dict, strict=False, **kwargs)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As in transformers; of a model with an adapter only the adapter folder is written."""
        if record_of(self) is None:
            return super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("push_to_hub"):
            raise RadioVLMError("push_to_hub: save the adapter folder and upload it with `hf upload`")
        if kwargs.get("is_main_process", True):
            save_adapter(self, save_directory, kwargs.get("state_dict"))
        return None
