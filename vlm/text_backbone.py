"""What inference needs fixed in a native language model; exported with the model, applied whenever one is built.

* NemotronH's mixers clamp their time steps to `config.time_step_min` (0.001), an initialisation range, instead of
  `config.time_step_limit` (0, inf): trained steps below 0.001 are lost and the logits drift
  (huggingface/transformers#48989).
* Falcon-H1 scales its embeddings on the `input_ids` path alone.
* NemotronH ignores `tie_word_embeddings`; here the setting means what it says.

It also answers what the model must know of a backbone before it may take a short cut.
"""

import inspect

from torch import nn
from transformers import PreTrainedModel

# Families whose forward is `lm_head(base_model(x))` and nothing more (no logit scale, no soft cap); a test checks each.
PLAIN_HEADS = frozenset({"nemotron_h", "llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2"})


def fix_time_step_limit(language_model: nn.Module) -> int:
    """Give every NemotronH mixer the limits of its config; returns how many mixers there are."""
    mixers = [module for module in language_model.modules() if hasattr(module, "time_step_limit")]
    mixers = [mixer for mixer in mixers if getattr(getattr(mixer, "config", None), "model_type", "") == "nemotron_h"]
    for mixer in mixers:
        mixer.time_step_limit = tuple(float(limit) for limit in mixer.config.time_step_limit)
    return len(mixers)


def embedding_scale(language_model: nn.Module) -> float:
    """Factor an `inputs_embeds` call must apply itself: Falcon-H1 multiplies embeddings only on its `input_ids` path.

    1 for a model whose forward does it (`scales_inputs_embeds`, see `llm.causal_lm`), so that it never happens twice.
    """
    config = language_model.config
    if config.model_type != "falcon_h1" or getattr(language_model, "scales_inputs_embeds", False):
        return 1.0
    return float(config.embedding_multiplier or 1.0)


def honour_tied_embeddings(language_model: PreTrainedModel) -> None:
    """Declare the tie of `lm_head` to the embeddings where the config asks for one and the class knows none."""
    if not getattr(language_model.config, "tie_word_embeddings", False) or language_model._tied_weights_keys:
        return
    names = {id(module): name for name, module in language_model.named_modules()}
    source, target = language_model.get_input_embeddings(), language_model.get_output_embeddings()
    if source is None or target is None:
        return
    language_model._tied_weights_keys = {f"{names[id(target)]}.weight": f"{names[id(source)]}.weight"}
    language_model.all_tied_weights_keys = dict(language_model._tied_weights_keys)
    language_model.tie_weights()


def prepare_text_backbone(language_model: PreTrainedModel) -> PreTrainedModel:
    """Apply every fix; idempotent. Returns the same model."""
    fix_time_step_limit(language_model)
    honour_tied_embeddings(language_model)
    return language_model


def has_plain_head(language_model: PreTrainedModel) -> bool:
    """Whether logits are `lm_head(base_model(...))`, so that rows may be chosen before the head."""
    base = getattr(language_model, language_model.base_model_prefix or "-", None)
    native = type(language_model).__module__.startswith("transformers.")
    return native and base is not None and language_model.config.model_type in PLAIN_HEADS


def accepts(language_model: nn.Module, argument: str) -> bool:
    """Whether the forward of the language model names `argument`."""
    return argument in inspect.signature(language_model.forward).parameters
