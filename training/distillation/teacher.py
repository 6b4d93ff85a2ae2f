"""Where a teacher comes from: the student itself without its adapters, or a second model.

The second model is a whole copy on every process, also under ZeRO-3, and is never saved. The student itself costs no
memory but copies of what trains beside the adapters (projector, rows of new tokens).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from llm.lora import is_adapter_parameter
from training.freezing import shape_of
from training.recipe import Recipe, RecipeError
from vlm.adapter_folder import is_adapter


class Teacher:
    """A model that can be run as it was when the stage began.

    Attributes:
        model: a VLM with a prepared `language_model`.
    """

    def __init__(self, model: nn.Module):
        self.model = model

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, `model` is the teacher and makes no gradients."""
        with torch.no_grad():
            yield

    def states(self, inputs: dict, asked: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """`(rows (N, D), labels (N,))`: the hidden states that predict a label, and these.

        Args:
            inputs: the batch, with `labels`, as the student gets it. asked: as in `asked_rows`.
        """
        found = []

        def keep(hidden, targets, weights, language_model):
            rows = asked_rows(targets, asked)
            found.extend((hidden[rows], targets[rows]))
            return hidden.new_zeros(())

        # without weights no logits are made
        nothing = torch.zeros_like(inputs["labels"], dtype=torch.float32)
        inputs = inputs | {"token_weights": nothing, "num_items_in_batch": 1, "row_loss": keep}
        was_training = self.model.training
        self.model.eval()
        try:
            with self.active():
                self._run(inputs)
        finally:
            self.model.train(was_training)
        return found[0], found[1]

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, V) of (N, D) rows of `states`."""
        with self.active():
            return self.model.language_model.logits_of(rows)

    def _run(self, inputs: dict) -> None:
        self.model(**inputs)


class SecondModel(Teacher):
    """A frozen model of its own."""

    def __init__(self, model: nn.Module):
        super().__init__(model.requires_grad_(False).eval())

    def _run(self, inputs: dict) -> None:
        self.model.to(inputs["input_ids"].device)  # once: the student goes there after this one is made
        super()._run(inputs)


class WithoutAdapters(Teacher):
    """The student itself with its adapters switched off, and with the first values of what else trains."""

    def __init__(self, model: nn.Module):
        """model: as it is before the first step, its requires_grad set."""
        super().__init__(model)
        self.layers = [module for module in model.modules() if hasattr(module, "_disable_adapters")]
        self.sharded = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
        self.first = {parameter: parameter.detach().clone() for parameter in trained_beside(model)}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        # peft's own switch would take requires_grad away too, which DeepSpeed has counted on
        with torch.no_grad():
            before = [layer._disable_adapters for layer in self.layers]
            now = {parameter: parameter.data for parameter in self.first}
            cached = torch.is_autocast_cache_enabled()
            torch.set_autocast_cache_enabled(False)  # it knows parameters, not their values: those of the student
            try:
                for layer in self.layers:
                    layer._disable_adapters = True
                for parameter, value in self.first.items():
                    self.first[parameter] = value = value.to(parameter.device, parameter.dtype)
                    parameter.data = value
                yield
            finally:
                torch.set_autocast_cache_enabled(cached)
                for layer, value in zip(self.layers, before, strict=True):
                    layer._disable_adapters = value
                for parameter, value in now.items():
                    parameter.data = value

    def _run(self, inputs: dict) -> None:
        if not self.sharded or any(inputs.get(key) is not None for key in ("pixel_values", "pixel_values_videos")):
            return super()._run(inputs)
        # ZeRO-3's ranks gather weights together: one without pictures makes the calls of the others, in their order
        idle = self.model.get_input_embeddings().register_forward_hook(
            lambda module, given, embeds: embeds + self.model._idle_media().to(embeds)
        )
        try:
            super()._run(inputs)
        finally:
            idle.remove()


def asked_rows(targets: torch.Tensor, asked: torch.Tensor | None) -> torch.Tensor:
    """(B, L) bool of (B, L) targets: where there is one, and its label's place is among `asked` (B, L)."""
    rows = targets != -100
    return rows if asked is None else rows & nn.functional.pad(asked[:, 1:].to(rows.device), (0, 1))


def trained_beside(model: nn.Module) -> list[nn.Parameter]:
    """What trains and is no adapter."""
    named = model.named_parameters()
    return [one for name, one in named if one.requires_grad and not is_adapter_parameter(name)]


def is_own_teacher(recipe: Recipe) -> bool:
    """Whether the student without its adapters is the model that it started from, and that is its teacher."""
    name = recipe.distill.teacher or recipe.model
    return recipe.adapter.rank > 0 and name == recipe.model and not is_adapter(name)


def open_teacher(model: nn.Module, processor, recipe: Recipe, args) -> Teacher:
    """The teacher of a stage.

    Args:
        model: the student before its first step, with its adapters and requires_grad set.

    Raises:
        RecipeError: the teacher is not there, counts tokens otherwise, or cannot be held.
    """
    name = recipe.distill.teacher or recipe.model
    sharded = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    if is_own_teacher(recipe) and not (sharded and trained_beside(model)):
        return WithoutAdapters(model)
    if recipe.adapter.quantize is not None:
        raise RecipeError(
            f"adapter.quantize = {recipe.adapter.quantize} and distill.weight = {recipe.distill.weight}: the teacher "
            f"would be {name}, an adapter on the same base, and a second quantized model is not held: merge it first "
            "(`radio-vlm merge`) and start from the result, or set distill.weight=0"
        )
    teacher, its_processor = _load(name, recipe, args)
    _check_alike(model, processor, teacher, its_processor, name)
    return SecondModel(teacher)


def _load(name: str, recipe: Recipe, args) -> tuple[nn.Module, object]:
    """A whole model, also where the student is built in ZeRO-3's shards."""
    from transformers.integrations import deepspeed as integration

    from training.loading import load_model

    kept = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        teacher, processor = load_model(replace(recipe, model=name), args)
    except RecipeError as error:
        raise RecipeError(f"distill.teacher = {name}: {error}") from error
    finally:
        integration._hf_deepspeed_config_weak_ref = kept
    if is_adapter(name):
        teacher.load_adapter(name)
    return teacher, processor


def _check_alike(student: nn.Module, processor, teacher: nn.Module, its_processor, name: str) -> None:
    """Both models answer the same tokens in the same places."""
    ours, theirs = (shape_of(model.get_output_embeddings().weight)[0] for model in (student, teacher))
    words = processor.tokenizer.get_vocab() == its_processor.tokenizer.get_vocab()
    if ours != theirs or not words:
        raise RecipeError(
            f"distill.teacher = {name} has a vocabulary of {theirs} tokens, and the model that trains one of {ours}"
            + ("" if ours != theirs else ", with other words")
            + ": a divergence needs the same tokens; leave distill.teacher out, or set distill.weight=0"
        )
    prints = [getattr(model.config, "fingerprint", None) for model in (student, teacher)]
    if prints[0] != prints[1]:
        raise RecipeError(
            f"distill.teacher = {name} makes other tokens of a picture ({prints[1]}) than the model that trains "
            f"({prints[0]}): leave distill.teacher out, or set distill.weight=0"
        )
