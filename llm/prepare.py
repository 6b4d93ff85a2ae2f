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
    return type(original.__name__, (mixin, original), {**names, "prepared_from": original})


def is_prepared(module: nn.Module) -> bool:
    """Whether `prepare_language_model` swapped the class of this module."""
    return "prepared_from" in vars(type(module))


def _swap(module: nn.Module, mixin: type) -> None:
    if not is_prepared(module):
        module.__class__ = _prepared_class(type(module), mixin)


def prepare_language_model(model: PreTrainedModel) -> PreTrainedModel:
    """Prepare a causal language model in place and return it; twice is once.

    Raises:
        TypeError: a model without an output head: only causal language models can be prepared.
    """
    if not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is None:
        raise TypeError(f"{type(model).__name__} is no causal language model of transformers: it has no output head")
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
