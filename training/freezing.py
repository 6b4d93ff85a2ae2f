"""Which weights train: freezing by module, the rows of new tokens, and the table that says so.

The table is made from the optimizer groups themselves (`training/optimizers.py`), printed once, saved as
`trainable.json`, and compared by a test with what DeepSpeed's optimizer really holds.
"""

import json
import re
from pathlib import Path

import torch
from torch import nn

from llm.lora import is_adapter_parameter
from training.recipe import RecipeError

PREFIXES = {"vision": ("vision_model.", "model.vision_model."), "projector": ("multi_modal_projector.",)}


# Norms of towers and language models by the name of their class: LayerNorm, LlamaRMSNorm, MambaRMSNormGated ...
NORM_CLASS = re.compile(r"Norm(Gated|\dd)?$")


def module_of(name: str) -> str:
    """`vision`, `projector`, `text` or, for LoRA's matrices, `text_adapter` for a parameter name; a model that is only
    an LLM is all text."""
    if is_adapter_parameter(name):
        return "text_adapter"
    for module, prefixes in PREFIXES.items():
        if name.startswith(prefixes):
            return module
    return "text"


def shape_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape as a layer; ZeRO-3 leaves an empty placeholder and keeps the real shape in `ds_shape`."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def size_of(parameter: nn.Parameter) -> int:
    """Number of elements as a layer, also under ZeRO-3."""
    return torch.Size(shape_of(parameter)).numel()


def norm_ids(model: nn.Module) -> set[int]:
    """Ids of the weights and biases of norms, decided by the class of the module that owns them."""
    norms = (module for module in model.modules() if NORM_CLASS.search(type(module).__name__))
    return {id(parameter) for module in norms for parameter in module.parameters(recurse=False)}


def apply_freezing(model: nn.Module, modules) -> nn.Parameter | None:
    """Set requires_grad everywhere. Returns the embedding table if only its new rows are to train, else None.

    In a model with LoRA adapters the language model's own weights are frozen, whatever `modules.text` says.
    """
    names = dict(model.named_parameters())
    adapted = any(map(is_adapter_parameter, names))
    norms, trained = norm_ids(model), set()
    for name, parameter in names.items():
        module = module_of(name)
        if module == "text_adapter":
            trains = True
        else:
            part = getattr(modules, module)
            closed = part.freeze or (adapted and module == "text")
            trains = not closed and (not part.norms_only or id(parameter) in norms)
        if parameter.is_floating_point():  # quantized weights cannot have a gradient
            parameter.requires_grad_(trains)
        trained |= {module} if trains else set()
    for module in ("vision", "projector", "text"):
        if getattr(modules, module).norms_only and module not in trained and not (adapted and module == "text"):
            raise RecipeError(f"modules.{module}.norms_only = true, but the {module} has no norms with weights")
    closed = modules.text.freeze or modules.text.norms_only or adapted
    if not closed or modules.new_embeddings.freeze:
        return None
    table = model.get_input_embeddings().weight
    table.requires_grad_(True)
    return table


def new_token_ids(model: nn.Module, tokenizer) -> list[int]:
    """Ids of the tokens the VLM added to its language model's vocabulary: by role in the config, and by string."""
    config = model.config
    roles = ("image_token_id", "video_token_id", "image_start_token_id", "image_end_token_id")
    ids = {getattr(config, role, None) for role in roles}
    words = getattr(config, "special_tokens", None) or {}
    if tokenizer is not None:
        unknown = getattr(tokenizer, "unk_token_id", None)
        ids |= {index for index in tokenizer.convert_tokens_to_ids(list(words.values())) if index != unknown}
    return sorted(index for index in ids if isinstance(index, int))


def train_rows_only(table: nn.Parameter, rows: list[int]) -> None:
    """Let gradients reach only `rows` of an embedding table.

    With the gradient of every other row at exactly zero and no weight decay, AdamW leaves those rows bit-equal.
    """
    if not rows:
        raise RecipeError(
            "modules.new_embeddings.freeze is false but the model names no special tokens; "
            "set modules.new_embeddings.freeze=true"
        )
    vocabulary = shape_of(table)[0]
    if max(rows) >= vocabulary:
        raise RecipeError(f"special token id {max(rows)} lies outside the embedding table of {vocabulary} rows")
    keep = torch.zeros(vocabulary, 1)
    keep[rows] = 1.0
    table.register_hook(lambda gradient: gradient * keep.to(gradient.device, gradient.dtype))


def trainable_table(model: nn.Module, groups: list[dict]) -> list[dict]:
    """One row per optimizer group plus one per module for what is frozen; parameter counts add up to the model."""
    rows = [
        {
            "group": group["name"],
            "tensors": len(group["params"]),
            "parameters": group.get("rows_parameters") or sum(size_of(parameter) for parameter in group["params"]),
            "trainable": True,
            "optimizer": "muon" if group.get("use_muon") else "adamw",
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
        }
        for group in groups
    ]
    frozen: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            frozen.setdefault(module_of(name), []).append(parameter)
    for module, parameters in frozen.items():
        count = sum(size_of(parameter) for parameter in parameters)
        rows.append(
            {"group": f"{module}/frozen", "tensors": len(parameters), "parameters": count, "trainable": False}
            | {"optimizer": None, "lr": None, "weight_decay": None}
        )
    return rows


def format_table(rows: list[dict]) -> str:
    """The table as aligned text."""
    width = max([26, *(len(row["group"]) for row in rows)])
    names = f"{'tensors':>7} {'parameters':>15} {'trains':>6} {'optimizer':>9} {'lr':>9} {'decay':>7}"
    header = f"{'group':{width}} {names}"
    lines = [header]
    for row in rows:
        rate = "-" if row["lr"] is None else f"{row['lr']:.2e}"
        decay = "-" if row["weight_decay"] is None else f"{row['weight_decay']:g}"
        lines.append(
            f"{row['group']:{width}} {row['tensors']:>7} {row['parameters']:>15,} "
            f"{'yes' if row['trainable'] else 'no':>6} {row['optimizer'] or '-':>9} {rate:>9} {decay:>7}"
        )
    return "\n".join(lines)


def save_table(rows: list[dict], folder: Path) -> None:
    """Write `trainable.json`."""
    (folder / "trainable.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
