"""4- and 8-bit loading converts the language model only: encoder and projector are small and lose the most."""

VISION_MODULES = ("vision_model", "multi_modal_projector")
# Giving a list replaces transformers' own, which holds the output head.
DEFAULT_MODULES = ("language_model.lm_head", "lm_head")
_SKIP_ATTRIBUTES = ("llm_int8_skip_modules", "modules_to_not_convert")


def leave_vision_alone(quantization_config):
    """The same quantization config (object or dict) with encoder, projector and head on its list of exceptions."""
    is_dict = isinstance(quantization_config, dict)
    for attribute in _SKIP_ATTRIBUTES:
        known = attribute in quantization_config if is_dict else hasattr(quantization_config, attribute)
        if not known and not (is_dict and attribute == "llm_int8_skip_modules"):
            continue
        old = quantization_config.get(attribute) if is_dict else getattr(quantization_config, attribute)
        new = list(dict.fromkeys([*(old or DEFAULT_MODULES), *VISION_MODULES]))
        if is_dict:
            quantization_config = {**quantization_config, attribute: new}
        else:
            setattr(quantization_config, attribute, new)
        break
    return quantization_config
