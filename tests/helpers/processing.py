"""Small processors and pictures that the processing tests share."""

from pathlib import Path

import numpy as np
from PIL import Image

from llm.tiny_tokenizer import build_byte_tokenizer
from vlm.image_processing_radio_vlm import RadioVLMImageProcessor
from vlm.label_mask import FAMILIES
from vlm.processing_radio_vlm import RadioVLMProcessor

TEMPLATES = Path(__file__).resolve().parents[1] / "fixtures" / "chat_templates"
GEOMETRY = {"mode": "dynamic", "patch_size": 16, "multiple": 2, "min_num_patches": 4, "max_num_patches": 64}
MARKERS = tuple(
    dict.fromkeys(
        m for f in FAMILIES for m in (*f.markers, f.end) if m and m.startswith(("<", "[")) and m != "<|im_end|>"
    )
)


def picture(height: int = 48, width: int = 64, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_processor(tokenizer=None, geometry: dict | None = None, **kwargs) -> RadioVLMProcessor:
    tokenizer = tokenizer or build_byte_tokenizer()
    return RadioVLMProcessor(RadioVLMImageProcessor(geometry=geometry or GEOMETRY), tokenizer, **kwargs)


def template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


def user(*parts) -> dict:
    """A user message: strings are text, everything else an image; a dict is taken as it is."""
    items = []
    for part in parts:
        if isinstance(part, dict):
            items.append(part)
        else:
            items.append({"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part})
    return {"role": "user", "content": items}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def unmasked_runs(encoded: dict, tokenizer) -> list[str]:
    """The text of each stretch of tokens that has labels."""
    runs, current = [], []
    for token, label in zip(encoded["input_ids"].tolist(), encoded["labels"].tolist()):
        if label != -100:
            assert label == token
            current.append(token)
        elif current:
            runs.append(tokenizer.decode(current))
            current = []
    return [*runs, tokenizer.decode(current)] if current else runs
