"""Does everything learn that should, and nothing else? Asked of the gradients of the first step, before its update.

A part that is cut off (a detach, a branch that is never called, a flag that something flipped) trains for days without
a sign. Every optimizer group must have a finite gradient other than zero, and no other parameter may have one. A step
without pictures or videos says nothing about the vision side (its gradient is exactly zero there), nor one without
labels about anything: such groups are judged at the first step that can tell.
"""

import logging

import torch
from torch import nn

from llm.lora import check_lora_gradients, is_adapter_parameter
from training.freezing import module_of
from training.ranks import all_ranks
from vlm.errors import RadioVLMError

logger = logging.getLogger(__name__)
NEEDS_MEDIA = ("vision", "projector", "new_embeddings")


class GradientError(RadioVLMError):
    """Gradients do not reach what trains, or reach what is frozen; the message lists the groups."""


def full_gradient(parameter: nn.Parameter) -> torch.Tensor | None:
    """The reduced gradient of a parameter, also where DeepSpeed holds it in pieces; all ranks ask together."""
    if not parameter.requires_grad:
        return parameter.grad
    if not hasattr(parameter, "ds_id") and not hasattr(parameter, "_hp_mapping"):
        return parameter.grad
    from deepspeed.utils import safe_get_full_grad

    return safe_get_full_grad(parameter)


class GradientCheck:
    """Judges each optimizer group once; `pending` names those not judged yet."""

    def __init__(self, model: nn.Module, groups: list[dict]):
        """groups: of the unwrapped model, before DeepSpeed puts flat shards in the place of their parameters."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.model = model
        self.groups = {
            group["name"]: [(names[id(parameter)], parameter) for parameter in group["params"]] for group in groups
        }
        self.rows = any("rows_parameters" in group for group in groups)
        self.pending = set(self.groups)
        self.frozen_checked = self.adapters_checked = False

    @property
    def done(self) -> bool:
        return not self.pending

    def check(self, has_labels: bool, has_media: bool, device: torch.device) -> None:
        """Between the last backward of a step and its update; called by every rank.

        Args:
            has_labels, has_media: whether this rank's micro-batches had any; the ranks share their answers.

        Raises:
            GradientError: on all ranks alike.
        """
        flags = all_ranks(torch.tensor([float(has_labels), float(has_media)], device=device)).tolist()
        if not flags[0]:
            return
        faults = [] if self.frozen_checked else self._frozen_faults(device)
        judged = [name for name in self.groups if name in self.pending and (flags[1] or not _needs_media(name))]
        if self.frozen_checked and not judged:
            return
        for name in judged:
            faults += self._group_faults(name, device)
        if faults:
            raise GradientError("gradients are not where they should be:\n  " + "\n  ".join(faults))
        if not self.adapters_checked and any(is_adapter_parameter(name) for name, _ in self.model.named_parameters()):
            try:
                check_lora_gradients(self.model)
            except (RuntimeError, ValueError) as error:
                raise GradientError(str(error)) from error
        self.frozen_checked = self.adapters_checked = True
        self.pending -= set(judged)
        waiting = f"; {len(self.pending)} groups wait for a step with pictures" if self.pending else ""
        logger.info(f"gradients reach {len(judged)} of {len(self.groups)} groups, and nothing that is frozen{waiting}")

    def _group_faults(self, name: str, device: torch.device) -> list[str]:
        """One line if the group does not learn."""
        found, missing, squares = 0, [], torch.zeros((), dtype=torch.float64, device=device)
        for parameter_name, parameter in self.groups[name]:
            gradient = full_gradient(parameter)
            if gradient is None:
                missing.append(parameter_name)
                continue
            found += 1
            squares += gradient.detach().to(device).double().square().sum()
        norm = squares.sqrt().item()
        example = self.groups[name][0][0]
        if not found:
            return [f"{name}: trains, but no gradient reaches it (such as {example}): its part of the graph is cut "
                    "off, never called, or something took requires_grad away; freeze it if that is meant"]  # fmt: skip
        if norm != norm or norm == float("inf"):
            return [f"{name}: its gradient is not finite (such as in {example}): look at the loss and the data"]
        if norm == 0:
            return [f"{name}: its gradient is exactly zero (such as in {example}): its output does not reach the loss; "
                    "freeze it if that is meant"]  # fmt: skip
        if missing:
            logger.warning(f"{name}: no gradient reaches {len(missing)} of its tensors, such as {missing[0]}")
        return []

    def _frozen_faults(self, device: torch.device) -> list[str]:
        """A line a module whose frozen weights have a gradient, or would get one without being in any group."""
        inside = {id(parameter) for members in self.groups.values() for _, parameter in members}
        flipped: dict[str, list[str]] = {}
        for name, parameter in self.model.named_parameters():
            if id(parameter) not in inside and (parameter.requires_grad or parameter.grad is not None):
                flipped.setdefault(module_of(name), []).append(name)
        # every rank must come to the same end, or one would wait for another for ever
        count = all_ranks(torch.tensor(float(len(flipped)), device=device)).item()
        if count and not flipped:
            return ["frozen weights have a gradient on another rank"]
        return [
            f"{module}: {len(names)} frozen tensors (such as {names[0]}) have a gradient and are in no optimizer group"
            for module, names in flipped.items()
        ]


def _needs_media(group: str) -> bool:
    return group.split("/", 1)[0] in NEEDS_MEDIA
