"""How long a conversation will be, before its pixels are opened: what packing and checking data ask for."""

from dataclasses import dataclass

import torch

from vlm.prompt_tokens import IMAGE_TYPE, VIDEO_TYPE


@dataclass(frozen=True)
class PromptSize:
    """Tokens of a sample, and how many of them are placeholders of images and videos."""

    tokens: int
    media_tokens: int = 0

    @classmethod
    def of(cls, encoded: dict[str, torch.Tensor]) -> "PromptSize":
        """Of a sample of `encode` or `encode_text`."""
        types = encoded["mm_token_type_ids"]
        return cls(len(types), int(((types == IMAGE_TYPE) | (types == VIDEO_TYPE)).sum()))
