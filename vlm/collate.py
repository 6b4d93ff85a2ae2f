"""Encoded samples of any mix of media become one padded batch."""

import torch

PADDING = {"input_ids": None, "mm_token_type_ids": 0, "labels": -100}
MEDIA_KEYS = ("pixel_values", "image_grid_hw", "pixel_values_videos", "video_grid_thw", "video_num_tokens")


def collate(encoded: list[dict], pad_id: int, padding_side: str = "right") -> dict[str, torch.Tensor]:
    """Pads to the longest sample; media of all samples are laid end to end in sample order.

    Args:
        encoded: Of `RadioVLMProcessor.encode`; labels must be in all samples or in none to be kept.
        padding_side: "right" for training, "left" for generation.

    Returns:
        input_ids, attention_mask, mm_token_type_ids (B, L), labels (B, L) if given, and the media keys any sample has.
        uint8 pixels come out as float32 in [0, 1].
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side={padding_side!r} must be 'left' or 'right'")
    lengths = [len(sample["input_ids"]) for sample in encoded]
    longest = max(lengths)
    keys = [key for key in PADDING if all(key in sample for sample in encoded)]
    batch = {}
    for key in keys:
        fill = pad_id if key == "input_ids" else PADDING[key]
        batch[key] = torch.full((len(encoded), longest), fill, dtype=torch.long)
    batch["attention_mask"] = torch.zeros(len(encoded), longest, dtype=torch.long)
    for row, (sample, length) in enumerate(zip(encoded, lengths)):
        place = slice(longest - length, longest) if padding_side == "left" else slice(0, length)
        for key in keys:
            batch[key][row, place] = sample[key]
        batch["attention_mask"][row, place] = 1
    for key in MEDIA_KEYS:
        parts = [sample[key] for sample in encoded if key in sample]
        if parts:
            batch[key] = torch.cat([part.float() / 255 if part.dtype == torch.uint8 else part for part in parts])
    return batch
