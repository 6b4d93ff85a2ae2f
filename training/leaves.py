"""ZeRO-3 leaf modules: parts whose submodules are called for some samples and not for others.

ZeRO-3 gathers the weights of a module when it is called, all ranks together. Where the data decides which expert runs,
the ranks would wait for each other for ever; a leaf is gathered as a whole instead. Experts that are one fused tensor
(all of transformers' own) need nothing, and the vision tower runs on text-only ranks too.
"""

from torch import nn


def mark_leaves(model: nn.Module) -> list[str]:
    """Mark every module that holds a list of experts. Returns the names of their classes."""
    found = {type(module) for module in model.modules() if isinstance(getattr(module, "experts", None), nn.ModuleList)}
    if found:
        from deepspeed.utils import set_z3_leaf_modules

        set_z3_leaf_modules(model, list(found))
    return sorted(cls.__name__ for cls in found)
