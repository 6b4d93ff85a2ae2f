"""The teacher's distribution with the logits of its likeliest token and of the label exchanged: the label becomes the
likeliest, and what the teacher thinks of all other tokens stays.

"Probability shift" of Wen et al., "Preparing Lessons" (arXiv 1911.07471).
"""

import torch


def targets(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> tuple[torch.Tensor, None]:
    best, label = logits.max(-1, keepdim=True), labels[:, None]
    changed = logits.scatter(-1, best.indices, logits.gather(-1, label)).scatter(-1, label, best.values)
    return torch.log_softmax(changed / temperature, -1), None
