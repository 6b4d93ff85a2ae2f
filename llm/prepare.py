"""The one visible function that gives a language model of transformers what this package trains with: packed samples,
a scan without kernels, a loss without full logits, embeddings as generation input. It swaps the class of a few
modules for a subclass of the same name; parameters, names, configuration and `save_pretrained` stay transformers'
own, and `restore_language_model` takes it back.
"""

from functools import cache

from torch import nn
from transformers import PreTrainedModel

from llm.causal_lm import PackedCausalLM
from llm.family import family_of
from llm.packed_attention import PACKED_SDPA


@cache
def _prepared_class(original: type, mixin: type) -> type:
    """A subclass with the methods of `mixin`; same name and module, since transformers writes both into checkpoints."""
    names = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}

    def reduce(self, protocol):  # the name leads to the original class: say how this one is made
        return _new_instance, (original, mixin), self.__dict__

    methods = {"prepared_from": original, "__reduce_ex__": reduce}
    return type(original.__name__, (mixin, original), names | methods)


def _new_instance(original: type, mixin: type) -> nn.Module:
    """An empty instance for `copy` and `pickle` to fill."""
    prepared = _prepared_class(original, mixin)
    return prepared.__new__(prepared)


def is_prepared(module: nn.Module) -> bool:
    """Whether `prepare_language_model` swapped the class of this module."""
    return "prepared_from" in vars(type(module))


def _swap(module: nn.Module, mixin: type) -> None:
    if not is_prepared(module):
        module.__class__ = _prepared_class(type(module), mixin)


def _why_no_causal_lm(model: nn.Module) -> str | None:
    if isinstance(getattr(model, "language_model", None), PreTrainedModel):
        return "it has one inside: prepare model.language_model"
    if not isinstance(model, PreTrainedModel):
        return "it is no PreTrainedModel (adapters are added after preparing)"
    if model.get_output_embeddings() is None:
        return "it has no output head"
    if getattr(model.config, "is_encoder_decoder", False):
        return "it is an encoder with a decoder"
    return None if model.can_generate() else "it cannot generate"


def prepare_language_model(model: PreTrainedModel) -> PreTrainedModel:
    """Prepare a causal language model in place and return it; twice is once.

    Raises:
        TypeError: anything but a causal language model with its head.
    """
    reason = _why_no_causal_lm(model)
    if reason is not None:
        raise TypeError(f"{type(model).__name__} is no causal language model of transformers: {reason}")
    family = family_of(model)
    if family.arrange is not None:
        family.arrange(model)
    for module in model.modules():
        mixin = family.swaps.get(type(module).__name__)
        if mixin is not None:
            _swap(module, mixin)
    _swap(model, family.causal_lm or PackedCausalLM)
    if family.packs and model.config._attn_implementation == "sdpa":
        model.config._attn_implementation = PACKED_SDPA
    return model


def restore_language_model(model: PreTrainedModel) -> PreTrainedModel:
    """Give every swapped module its own class back."""
    for module in model.modules():
        if is_prepared(module):
            module.__class__ = type(module).prepared_from
    if model.config._attn_implementation == PACKED_SDPA:
        model.config._attn_implementation = "sdpa"
    return model
