"""What this package must know of a family of language models before it may pack, adapt, shard or train one: a
declared record, one file a family in `llm/model_families/`. Everything that iterates over families (the table of
`radio-vlm llms`, packing, LoRA, the loss, the tests) reads these records; adding a family touches one file.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedConfig

_REGISTRY: dict[str, "LLMFamily"] = {}
_LOADED: list[bool] = []


def _one(config: PreTrainedConfig) -> float:
    return 1.0


def _zero(config: PreTrainedConfig) -> float:
    return 0.0


@dataclass(frozen=True, kw_only=True)
class LLMFamily:
    """One family of causal language models.

    Attributes:
        model_type: `config.model_type` of transformers; empty for the default record.
        title: Name for people.
        kind: What its layers are, in words.
        packing: How packed samples are kept apart, in words; empty: it never packs (see `packing_needs_proof`).
        packing_needs_proof: Packs only after `llm.packing_proof` has found no path between two samples.
        swaps: Class name inside transformers -> mixin whose methods replace the class's own; `llm.prepare` does it.
        arrange: Called by `llm.prepare` on the model, to replace modules by others that compute the same.
        causal_lm: Mixin for the causal language model itself; None: `llm.causal_lm.PackedCausalLM`.
        lora_targets: Module name suffixes for peft.
        lora_refused: Module name suffix -> why an adapter there would be wrong.
        block_classes: Class names to wrap, shard or checkpoint as one unit.
        kernels: Names in `llm.kernels` it can use on a GPU.
        logit_scale: Factor on `lm_head(hidden)`.
        softcap: Cap `c` of `c * tanh(logits / c)`; None: no cap.
        embedding_scale: Factor this family applies to embeddings on its `input_ids` path only.
        z_loss: Weight of the mean squared logsumexp over all positions.
        auxiliary_loss: (model, outputs, attention_mask) -> weighted extra loss, or None where the config asks for none.
        base_options: Keyword arguments of the base model that `auxiliary_loss` needs.
        loss_extras: What the five above add to the plain loss, in words.
        turn_template: Row of the turn table in `vlm.label_mask` that its published chat template matches.
        tiny: Makes a configuration of a few layers, every multiplier different from 1; tests iterate over it.
        notes: What a user should know.
    """

    model_type: str
    title: str
    kind: str
    packing: str = ""
    packing_needs_proof: bool = False
    swaps: dict[str, type] = field(default_factory=dict)
    arrange: Callable[[nn.Module], None] | None = None
    causal_lm: type | None = None
    lora_targets: tuple[str, ...] = ()
    lora_refused: dict[str, str] = field(default_factory=dict)
    block_classes: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    logit_scale: Callable[[PreTrainedConfig], float] = _one
    softcap: Callable[[PreTrainedConfig], float | None] = lambda config: None
    embedding_scale: Callable[[PreTrainedConfig], float] = _one
    z_loss: Callable[[PreTrainedConfig], float] = _zero
    auxiliary_loss: Callable | None = None
    base_options: Callable[[PreTrainedConfig], dict] = lambda config: {}
    loss_extras: str = ""
    turn_template: str = ""
    tiny: Callable[[], PreTrainedConfig] | None = None
    notes: str = ""

    @property
    def packs(self) -> bool:
        """Whether it may be packed without a proof."""
        return bool(self.packing) and not self.packing_needs_proof


def register_family(family: LLMFamily) -> LLMFamily:
    """Add a record; a second one of the same `model_type` is an error."""
    if family.model_type in _REGISTRY:
        raise ValueError(f"language-model family {family.model_type!r} is registered twice")
    _REGISTRY[family.model_type] = family
    return family


def _load_families() -> None:
    if _LOADED:  # no `functools.cache`: torch.compile traces into it
        return
    import llm.model_families

    for info in pkgutil.iter_modules(llm.model_families.__path__):
        importlib.import_module(f"llm.model_families.{info.name}")
    _LOADED.append(True)


def families() -> dict[str, LLMFamily]:
    """`model_type` -> record of every known family, in alphabetic order."""
    _load_families()
    return {name: _REGISTRY[name] for name in sorted(_REGISTRY) if name}


def family_of(source: nn.Module | PreTrainedConfig | str) -> LLMFamily:
    """The record of a model, a configuration or a `model_type`; the default record for unknown ones."""
    _load_families()
    config = getattr(source, "config", source)
    model_type = config if isinstance(config, str) else getattr(config, "model_type", "")
    return _REGISTRY.get(model_type, _REGISTRY[""])
