"""Optimizer groups (module x {matrices, other}) and the two optimizers that take them.

The groups reach DeepSpeed as a client optimizer: an "optimizer" block in the DeepSpeed JSON would flatten them and
re-tag parameters for Muon by name, which lets convolutions and prefix tokens in. The tags are set here and checked.
"""

import contextlib

import torch
from torch import nn

from training.freezing import module_of, shape_of
from training.recipe import Recipe, RecipeError


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
        Groups `{name, params, lr, weight_decay, use_muon, ...}` in a fixed order; empty ones are left out.
        Tied weights appear once. Every parameter also carries `use_muon` as an attribute, which DeepSpeed reads.
    """
    matrices = matrix_ids(model)
    buckets: dict[tuple[str, str], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.use_muon = False
        if not parameter.requires_grad:
            continue
        if parameter is row_table:
            key = ("new_embeddings", "other")
        else:
            key = (module_of(name), "matrix" if id(parameter) in matrices else "other")
        buckets.setdefault(key, []).append(parameter)

    groups = []
    for (module, kind), parameters in sorted(buckets.items()):
        groups.append(_group(recipe, module, kind, parameters))
    if not groups:
        raise RecipeError("no parameter of the model trains; set modules.<name>.freeze=false for one that exists")
    return groups


def _group(recipe: Recipe, module: str, kind: str, parameters: list[nn.Parameter]) -> dict:
    train, part = recipe.train, getattr(recipe.modules, module)
    muon = kind == "matrix" and (part.optimizer or train.optimizer) == "muon"
    decay = 0.0
    if kind == "matrix":
        decay = train.weight_decay if part.weight_decay is None else part.weight_decay
    group = {"name": f"{module}/{kind}", "params": parameters, "weight_decay": decay, "use_muon": muon}
    if muon:
        group["lr"] = train.muon_learning_rate if part.muon_lr is None else part.muon_lr
        group["momentum"] = train.muon_momentum
        for parameter in parameters:
            parameter.use_muon = True
    else:
        group["lr"] = train.learning_rate if part.lr is None else part.lr
        group["betas"], group["eps"] = tuple(train.betas), train.eps
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
            if self.max_grad_norm > 0:
                for group in self.param_groups:
                    if not group["use_muon"]:
                        self._clip(group["params"])
            # Newton-Schulz is wrapped in torch.compile; on CPU compiling takes up to 20 s and gains nothing.
            on_cpu = not any(parameter.is_cuda for group in self.param_groups for parameter in group["params"])
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
