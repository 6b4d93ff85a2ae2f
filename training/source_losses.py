"""Loss per source of the mixture, from what every forward makes anyway: no second forward."""

import torch

from training.losses import sample_numbers, target_mask


class SourceLosses:
    """Sums of token losses and tokens by source since the last `read`; tensors stay on their device until then."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, batch: dict, token_losses: torch.Tensor | None) -> None:
        """Count one batch.

        Args:
            batch: `labels` (B, L), `sources` (one a sample, in order) and, packed, `seq_idx`.
            token_losses: (B, L) cross entropy of each label; None (a model that gives none) counts nothing.
        """
        if token_losses is None or not batch.get("sources"):
            return
        names = sorted(set(batch["sources"]))
        device = token_losses.device
        source = torch.tensor([names.index(name) for name in batch["sources"]], device=device)
        kinds = source[sample_numbers(batch).to(device).flatten()]
        targets = target_mask(batch["labels"], batch.get("seq_idx")).to(device).flatten()
        each = torch.stack([token_losses.flatten().double(), targets.double()], dim=1)
        sums = each.new_zeros(len(names), 2).index_add_(0, kinds, each)
        for name, one in zip(names, sums):
            self.sums[name] = self.sums[name] + one if name in self.sums else one

    def add_whole(self, batch: dict, summed: torch.Tensor) -> None:
        """Count one batch whose samples are all of one source.

        Args:
            batch: as in `add`. summed: () cross entropy of all its targets.
        """
        if batch.get("sources"):
            tokens = target_mask(batch["labels"], batch.get("seq_idx")).sum()
            one = torch.stack([summed.double(), tokens.to(summed.device).double()])
            name = batch["sources"][0]
            self.sums[name] = self.sums[name] + one if name in self.sums else one

    def read(self) -> dict[str, float]:
        """Mean loss a token by source over all ranks since the last read. Called by every rank."""
        mine = {name: one.tolist() for name, one in self.sums.items()}
        self.sums = {}
        parts = [mine]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, mine)
        total: dict[str, list[float]] = {}
        for part in parts:
            for name, (loss, tokens) in part.items():
                before = total.get(name, [0.0, 0.0])
                total[name] = [before[0] + loss, before[1] + tokens]
        return {name: loss / tokens for name, (loss, tokens) in sorted(total.items()) if tokens}
