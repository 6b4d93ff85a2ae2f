"""Encoded samples of any mix of media become one batch: a padded row each, or whole samples end to end in rows."""

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
    return batch | joined_media(encoded)


def collate_packed(rows: list[list[dict]], pad_id: int) -> dict[str, torch.Tensor]:
    """Lays the samples of each row end to end; media of all samples follow in the same order.

    Args:
        rows: Of samples of `RadioVLMProcessor.encode`; a row may be empty, a batch may not.

    Returns:
        As `collate`, and seq_idx (B, L) int32, which numbers the samples of a row upwards from 0; the padding behind
        them has the next number.
    """
    samples = [sample for row in rows for sample in row]
    longest = max(1, *(sum(len(sample["input_ids"]) for sample in row) for row in rows))
    keys = [key for key in PADDING if all(key in sample for sample in samples)]
    fills = {key: pad_id if key == "input_ids" else PADDING[key] for key in keys}
    batch = {key: torch.full((len(rows), longest), fill, dtype=torch.long) for key, fill in fills.items()}
    batch["attention_mask"] = torch.zeros(len(rows), longest, dtype=torch.long)
    batch["seq_idx"] = torch.zeros(len(rows), longest, dtype=torch.int32)
    for number, row in enumerate(rows):
        start = 0
        for count, sample in enumerate(row):
            place = slice(start, start := start + len(sample["input_ids"]))
            for key in keys:
                batch[key][number, place] = sample[key]
            batch["seq_idx"][number, place] = count
        batch["attention_mask"][number, :start] = 1
        batch["seq_idx"][number, start:] = len(row)
    return batch | joined_media(samples)


def joined_media(encoded: list[dict]) -> dict[str, torch.Tensor]:
    """The media tensors of samples end to end; uint8 pixels become float32 in [0, 1]."""
    joined = {}
    for key in MEDIA_KEYS:
        parts = [sample[key] for sample in encoded if key in sample]
        if parts:
            joined[key] = torch.cat([part.float() / 255 if part.dtype == torch.uint8 else part for part in parts])
    return joined
