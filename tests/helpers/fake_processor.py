"""Keeps the `encode`/`collate` contract of RadioVLMProcessor in a few lines: one token a character, four an image."""

import numpy as np
import torch
from PIL import Image

from vlm.errors import SampleError

IMAGE_TOKENS = 4


class FakeProcessor:
    def __init__(self):
        self.encoded_ids: list[str] = []

    def encode(self, messages, add_generation_prompt=False, max_length=None, sample_id=None):
        self.encoded_ids.append(sample_id)
        ids, labels, types, pixels, grids = [], [], [], [], []
        for message in messages:
            for item in message["content"]:
                if item["type"] == "image":
                    pixels.append(self._pixels(item["image"], sample_id))
                    grids.append([2, 2])
                    ids += [1] * IMAGE_TOKENS
                    labels += [-100] * IMAGE_TOKENS
                    types += [1] * IMAGE_TOKENS
                elif item["type"] == "text":
                    new = [ord(character) for character in item["text"]]
                    ids += new
                    labels += new if message["role"] == "assistant" else [-100] * len(new)
                    types += [0] * len(new)
        if max_length is not None and len(ids) > max_length:
            raise SampleError(f"{len(ids)} tokens, max_length is {max_length}", sample_id, None, "too_long")
        encoded = {
            "input_ids": torch.tensor(ids),
            "labels": torch.tensor(labels),
            "mm_token_type_ids": torch.tensor(types),
        }
        if pixels:
            encoded |= {"pixel_values": torch.cat(pixels), "image_grid_hw": torch.tensor(grids)}
        return encoded

    def collate(self, encoded, padding_side="right"):
        longest = max(len(one["input_ids"]) for one in encoded)
        batch = {}
        for key, fill in (("input_ids", 0), ("labels", -100), ("mm_token_type_ids", 0)):
            batch[key] = torch.stack([pad(one[key], longest, fill, padding_side) for one in encoded])
        ones = [torch.ones_like(one["input_ids"]) for one in encoded]
        batch["attention_mask"] = torch.stack([pad(one, longest, 0, padding_side) for one in ones])
        for key in ("pixel_values", "image_grid_hw"):
            if parts := [one[key] for one in encoded if key in one]:
                batch[key] = torch.cat([part / 255 if part.dtype == torch.uint8 else part for part in parts])
        return batch

    @staticmethod
    def _pixels(image, sample_id):
        if not isinstance(image, Image.Image):
            try:
                image = Image.open(image).convert("RGB")
            except (OSError, SyntaxError) as error:
                raise SampleError(f"broken picture: {error}", sample_id, str(image), "corrupt_image") from None
        array = np.array(image.convert("RGB").resize((32, 32)))
        return torch.from_numpy(array).float().div(255).reshape(4, -1)


def pad(values, length, fill, side):
    filler = torch.full((length - len(values),), fill, dtype=values.dtype)
    return torch.cat([values, filler] if side == "right" else [filler, values])
