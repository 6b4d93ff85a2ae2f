"""Questions on the embedded CT-like slices, with an expert on offer: side, size and number of lesions need it."""

from __future__ import annotations

from eval.tasks.expert_conversation import ExpertConversation
from eval.tasks.registry import register_task


@register_task
class SyntheticMedical(ExpertConversation):
    name = "synthetic_medical"
    key = "medical"
    metrics = ("accuracy",)
    max_new_tokens = 16
    experts = ("LESIONS",)  # what the checkpoint was trained with: another card would be another prompt
