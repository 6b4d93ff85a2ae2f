"""The real processor at its smallest: byte tokenizer, pictures of at most 64 patches."""

from llm.tiny_tokenizer import build_byte_tokenizer
from vlm.image_processing_radio_vlm import RadioVLMImageProcessor
from vlm.processing_radio_vlm import RadioVLMProcessor

GEOMETRY = {"mode": "dynamic", "patch_size": 16, "multiple": 2, "min_num_patches": 4, "max_num_patches": 64}


def tiny_processor(**geometry) -> RadioVLMProcessor:
    return RadioVLMProcessor(RadioVLMImageProcessor(geometry={**GEOMETRY, **geometry}), build_byte_tokenizer())
