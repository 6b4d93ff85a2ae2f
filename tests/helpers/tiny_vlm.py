"""An untrained tiny model with its processor, made as `radio-vlm new --preset tiny` makes it."""

import torch


def build_tiny(seed: int = 0, vision=None, **options):
    """(model in eval mode, processor) of an encoder (default: the preset); options go to `vlm.build.build_vlm`."""
    from encoders.presets import VISION_PRESETS
    from llm.presets import LLM_PRESETS
    from vlm.build import build_vlm

    torch.manual_seed(seed)
    text = LLM_PRESETS["tiny"]
    vision = vision or VISION_PRESETS["tiny"].config()
    model, processor = build_vlm(vision, text.config(), text.tokenizer(), **options)
    model.config.base_models = {"vision": "preset:tiny", "text": "preset:tiny"}
    return model.eval(), processor
