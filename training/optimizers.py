"""Optimizer groups (module x {matrices, other}, with layer decay also x block) and the two optimizers that take them.

The groups reach DeepSpeed as a client optimizer: an "optimizer" block in the DeepSpeed JSON would flatten them and
re-tag parameters for Muon by name, which lets convolutions and prefix tokens in. The tags are set here and checked.
"""

import contextlib

import torch
from torch import nn

from training.freezing import module_of, shape_of
from training.layer_decay import Place, places
from training.recipe import Module, Recipe, RecipeError

WHOLE = Place("", 0)  # of modules without layer decay


def matrix_ids(model: nn.Module) -> set[int]:
    """Ids of the parameters that are weights of hidden linear layers: these decay, and these may go to Muon.

    Decided by the module that owns a weight, not by its name: embedding and position tables, prefix tokens and
    convolutions are no linear layers; heads are, but read out of the model, and may share the embedding table.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for find in ("get_output_embeddings", "get_input_embeddings"):
        module = getattr(model, find, lambda: None)()
        if module is not None:
            tables.add(id(module.weight))
    linear = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
    return {id(weight) for weight in linear if len(shape_of(weight)) == 2} - tables


def build_param_groups(model: nn.Module, recipe: Recipe, row_table: nn.Parameter | None = None) -> list[dict]:
    """The optimizer groups of a model whose requires_grad flags are set (`freezing.apply_freezing`).

    Args:
        row_table: embedding table of which only the new rows train; it gets a group of its own, never decayed.

    Returns:
        Groups `{name, params, lr, weight_decay, use_muon, ...}` in a fixed order; empty ones are left out. With
        `modules.<name>.layer_decay` a group a block: `vision/block03/matrix` (see `training.layer_decay`).
        Tied weights appear once. Every parameter also carries `use_muon` as an attribute, which DeepSpeed reads.
    """
    matrices = matrix_ids(model)
    stands = _places(model, recipe)
    buckets: dict[tuple[str, int, str, str], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.use_muon = False
        if not parameter.requires_grad:
            continue
        place = stands.get(name, WHOLE)
        if parameter is row_table:
            key = ("new_embeddings", 0, "", "other")
        else:
            key = (module_of(name), -place.behind, place.part, "matrix" if id(parameter) in matrices else "other")
        buckets.setdefault(key, []).append(parameter)

    groups = []
    for (module, depth, part, kind), parameters in sorted(buckets.items()):
        groups.append(_group(recipe, module, kind, part, -depth, parameters))
    if not groups:
        raise RecipeError("no parameter of the model trains; set modules.<name>.freeze=false for one that exists")
    return groups


def _places(model: nn.Module, recipe: Recipe) -> dict[str, Place]:
    """Place of every parameter of the modules with layer decay."""
    names: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        names.setdefault(module_of(name), []).append(name)
    found = {}
    for module, own in names.items():
        if _settings(recipe, module).layer_decay is not None:
            found |= places(own, module)
    return found


def _settings(recipe: Recipe, module: str) -> Module:
    """The recipe's section for a module; adapters go by that of the language model they stand in."""
    return getattr(recipe.modules, "text" if module == "text_adapter" else module)


def _group(recipe: Recipe, module: str, kind: str, block: str, behind: int, parameters: list[nn.Parameter]) -> dict:
    train, part = recipe.train, _settings(recipe, module)
    muon = kind == "matrix" and (part.optimizer or train.optimizer) == "muon" and module != "text_adapter"
    decay = 0.0
    if kind == "matrix":
        decay = train.weight_decay if part.weight_decay is None else part.weight_decay
    name = "/".join(word for word in (module, block, kind) if word)
    group = {"name": name, "params": parameters, "weight_decay": decay, "use_muon": muon}
    if muon:
        rate = train.muon_learning_rate if part.muon_lr is None else part.muon_lr
        group["momentum"] = train.muon_momentum
        for parameter in parameters:
            parameter.use_muon = True
    else:
        rate = train.learning_rate if part.lr is None else part.lr
        group["betas"], group["eps"] = tuple(train.betas), train.eps
    group["lr"] = rate if part.layer_decay is None else rate * part.layer_decay**behind
    return group


def build_optimizer(groups: list[dict], recipe: Recipe, partitioned: bool) -> torch.optim.Optimizer:
    """AdamW, or DeepSpeed's Muon with AdamW for the rest when a group asks for Muon.

    Args:
        partitioned: True under ZeRO, where the optimizer sees flat shards of a group, one group per step() call.
    """
    if any(group["use_muon"] for group in groups):
        return _muon_class()(groups, recipe.train.max_grad_norm, partitioned)
    return torch.optim.AdamW(groups, lr=recipe.train.learning_rate, fused=_can_fuse(groups))


def _can_fuse(groups: list[dict]) -> bool:
    """Fused AdamW takes one pass over memory; it needs floating-point CPU or CUDA tensors."""
    return all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])


def _muon_class() -> type:
    """The Muon optimizer, built on first use because importing it needs deepspeed."""
    try:
        from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
    except ImportError as error:
        raise RecipeError("optimizer = muon needs deepspeed: pip install 'radio-vlm[train]', or use adamw") from error

    class MuonWithClippedAdam(MuonWithAuxAdam):
        """DeepSpeed's Muon (its ZeRO optimizers know the class) with torch's fused AdamW and clipping for AdamW alone.

        DeepSpeed's own clipping is off in this case: it measures the norm after Muon has orthogonalised its
        gradients, which is several dozen for a small model, and would shrink every update by that factor.
        """

        def __init__(self, groups: list[dict], max_grad_norm: float, partitioned: bool):
            fused = {"fused": _can_fuse(groups)}
            super().__init__(groups, adam_optimizer=torch.optim.AdamW, adam_optimizer_kwargs=fused)
            self.max_grad_norm = max_grad_norm
            self.partitioned = partitioned

        @torch.no_grad()
        def step(self, closure=None, step_id=None):
            everything = [parameter for group in self.param_groups for parameter in group["params"]]
            if not self.partitioned and all(parameter.grad is None for parameter in everything):
                return None  # a skipped step: DeepSpeed would put zeros there and let moments and weights decay
            if self.max_grad_norm > 0:
                for group in self.param_groups:
                    if not group["use_muon"]:
                        self._clip(group["params"])
            # Newton-Schulz is wrapped in torch.compile; on CPU compiling takes up to 20 s and gains nothing.
            on_cpu = not any(parameter.is_cuda for parameter in everything)
            with torch.compiler.set_stance("force_eager") if on_cpu else contextlib.nullcontext():
                return super().step(closure, step_id)

        def _clip(self, parameters: list[torch.Tensor]) -> None:
            """Scale the gradients of one group so that their norm over all ranks is at most max_grad_norm."""
            if not parameters:  # ZeRO empties the groups that are not having their turn, the same ones on every rank
                return
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            total = torch.zeros((), device=parameters[0].device)
            for gradient in gradients:
                total += gradient.float().square().sum()
            if self.partitioned:
                torch.distributed.all_reduce(total)
            factor = (self.max_grad_norm / (total.sqrt() + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor)

    return MuonWithClippedAdam


def check_tags(groups: list[dict]) -> None:
    """Raise when something between group building and the first step has changed Muon's tags."""
    for group in groups:
        for parameter in group["params"]:
            if bool(getattr(parameter, "use_muon", False)) != bool(group["use_muon"]):
                raise RecipeError(
                    f"the Muon tag of a parameter in {group['name']} was changed after the groups were built; "
                    'remove the "optimizer" block from the DeepSpeed JSON'
                )
