"""From projected features to the language model's input: which positions they fill, and the checks on the way.

Token types say which stream feeds a placeholder (1 image, 2 video), so images and videos mix in any order; without them
the placeholder ids decide. One placeholder per feature, or an error that names the sample.
"""

from itertools import accumulate

import torch

from vlm.errors import RadioVLMError, SampleError

IMAGE, VIDEO = 1, 2


def has_media(pixels: dict[str, torch.Tensor | None]) -> bool:
    """Whether there are pixels of any kind; RadioVLMError when pixels come without grids or grids without pixels."""
    found = False
    for values, grids in (("pixel_values", "image_grid_hw"), ("pixel_values_videos", "video_grid_thw")):
        if (pixels[values] is None) != (pixels[grids] is None):
            raise RadioVLMError(f"{values} / {grids}: pass both or neither")
        found |= pixels[values] is not None
    if pixels.get("video_num_tokens") is not None and pixels["video_grid_thw"] is None:
        raise RadioVLMError("video_num_tokens given without video_grid_thw: pass both")
    return found


def placeholder_masks(
    input_ids: torch.Tensor | None, mm_token_type_ids: torch.Tensor | None, image_id: int | None, video_id: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(B, L)` bool masks of image and video placeholders."""
    if mm_token_type_ids is not None:
        return mm_token_type_ids == IMAGE, mm_token_type_ids == VIDEO
    if input_ids is None or input_ids.numel() == 0:
        raise SampleError("pictures beside `inputs_embeds` need `mm_token_type_ids`", reason="no_token_types")
    none = torch.zeros_like(input_ids, dtype=torch.bool)
    image = none if image_id is None else input_ids == image_id
    return image, none if video_id is None or video_id == image_id else input_ids == video_id


def check_counts(mask: torch.Tensor, per_picture: list[int], kind: str, sample_ids: list[str] | None) -> None:
    """Raise SampleError naming the first sample whose placeholders do not end where a picture ends.

    Args:
        mask: (B, L) placeholders of one kind. per_picture: projected tokens of each picture, in order.
    """
    counts = mask.sum(-1).tolist()
    total, ends = sum(counts), {0, *accumulate(per_picture)}
    # equal sums are not enough: one row too many and the next too few would shift pictures between samples
    culprit = next((row for row, seen in enumerate(accumulate(counts)) if seen not in ends), None)
    if culprit is None and total == sum(per_picture):
        return
    culprit = len(counts) - 1 if culprit is None else culprit
    named = sample_ids is not None and culprit < len(sample_ids)
    name = sample_ids[culprit] if named else f"row {culprit} of the batch"
    shown = ", ".join(map(str, per_picture[:8])) + (", ..." if len(per_picture) > 8 else "")
    raise SampleError(
        f"{total} {kind} placeholders but {sum(per_picture)} projected {kind} features ({len(per_picture)} of them: "
        f"{shown}); this sample has {counts[culprit]} placeholders",
        sample_id=name,
        reason="placeholder_mismatch",
    )


def scatter_features(embeds: torch.Tensor, mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """`(B, L, D)` with the rows of `features` (N, D) at the N true positions of `mask`, in order."""
    return embeds.masked_scatter(mask.unsqueeze(-1).to(embeds.device), features.to(embeds))


def feature_index(
    image_mask: torch.Tensor, video_mask: torch.Tensor, num_image_tokens: int
) -> torch.Tensor:
    """`(B, L)`: the row of `cat([image features, video features])` that fills each position, -1 for text."""
    index = torch.full_like(image_mask, -1, dtype=torch.long)
    index[image_mask] = torch.arange(int(image_mask.sum()), device=index.device)
    index[video_mask] = torch.arange(int(video_mask.sum()), device=index.device) + num_image_tokens
    return index


def gather_features(embeds: torch.Tensor, index: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """The twin of `scatter_features` for generation: any slice of positions, beams sharing one table of features."""
    index = index.to(embeds.device)
    features = features.to(embeds)
    return torch.where((index >= 0).unsqueeze(-1), features[index.clamp(min=0)], embeds)
