"""The teacher's distribution, only where its likeliest token is the label: a teacher that is wrong teaches nothing.

After Meng et al., "Conditional Teacher-Student Learning" (arXiv 1904.12399), who leave the label out where the teacher
is right; here the cross entropy stays everywhere, as for all targets. Tokens that are new to the teacher, such as the
trigger of an expert, are learned from the label alone.
"""

import torch


def targets(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.log_softmax(logits / temperature, -1), logits.argmax(-1) == labels
