"""Encoded samples -> batches: a padding collator, and a sampler that puts samples of similar length side by side.

The sampler deals the same number of batches to every rank, from one order that all ranks compute alike; they never talk
to each other.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from vlm.errors import RadioVLMError

EXTRA_KEYS = ("sample_id", "source")
# Batches are cut from so many global batches' worth of shuffled samples, sorted: similar lengths, still well mixed.
GROUP = 32


class PaddingCollator:
    """A list of encoded samples -> one batch of `processor.collate`, plus "sample_ids" and "sources" (lists of str)."""

    def __init__(self, processor: Any, padding_side: str = "right"):
        self.processor, self.padding_side = processor, padding_side

    def __call__(self, encoded: Sequence[dict[str, Any]]) -> dict[str, Any]:
        plain = [{key: value for key, value in one.items() if key not in EXTRA_KEYS} for one in encoded]
        batch = dict(self.processor.collate(plain, padding_side=self.padding_side))
        batch["sample_ids"] = [one.get("sample_id", "") for one in encoded]
        batch["sources"] = [one.get("source", "") for one in encoded]
        return batch


class GroupedBatchSampler(Sampler[list[int]]):
    """Batches of static indices for one rank; `set_epoch` chooses the epoch's order.

    order: epoch -> (N,) indices; lengths: (num_samples,) or None for no grouping. Every rank gets the same number of
    batches and the ranks' shares are disjoint stretches of the same order. What does not fill a batch on every rank
    becomes one smaller batch of equal size on each (`drop_last` leaves it out); fewer than `world_size` samples an
    epoch are left over, other ones each epoch.
    """

    def __init__(
        self,
        order,
        batch_size: int,
        lengths: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        drop_last: bool = False,
    ):
        if batch_size < 1 or not 0 <= rank < world_size:
            raise RadioVLMError(f"batch_size={batch_size}, rank={rank}, world_size={world_size} make no batches")
        self.order, self.lengths, self.batch_size = order, lengths, batch_size
        self.rank, self.world_size, self.seed, self.drop_last = rank, world_size, seed, drop_last
        self.epoch = 0
        self._size = len(order(0))
        if len(self) == 0:
            raise RadioVLMError(
                f"{self._size} samples are too few for {world_size} ranks with batches of {batch_size}"
                + " and drop_last" * drop_last
            )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self._size, self.batch_size * self.world_size)
        return full + (rest >= self.world_size and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches():
            yield batch[self.rank :: self.world_size].tolist()

    def global_batches(self) -> list[np.ndarray]:
        """All ranks' batches joined, (batch_size · world_size,) each; rank r takes every world_size-th from r on."""
        order = self.order(self.epoch)
        width = self.batch_size * self.world_size
        whole = len(order) // width * width
        batches: list[np.ndarray] = []
        for start in range(0, whole, width * GROUP):
            group = order[start : min(start + width * GROUP, whole)]
            if self.lengths is not None:
                group = group[np.argsort(-self.lengths[group], kind="stable")]
            batches += list(group.reshape(-1, width))
        batches = [batches[i] for i in np.random.default_rng([self.seed, 3, self.epoch]).permutation(len(batches))]
        rest = (len(order) - whole) // self.world_size * self.world_size
        if rest and not self.drop_last:
            batches.append(order[whole : whole + rest])
        return batches


class EpochDataLoader(DataLoader):
    """A DataLoader that passes `set_epoch`, which transformers.Trainer calls, on to its batch sampler and its dataset
    (before an epoch's workers start: they hold copies)."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


def build_loader(
    dataset,
    processor: Any,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    num_workers: int = 0,
    group_by_length: bool = True,
    drop_last: bool = False,
    **loader_options: Any,
) -> EpochDataLoader:
    """The batches of one rank. Already sharded: accelerate's `prepare` would shard it a second time."""
    sampler = GroupedBatchSampler(
        dataset.order, batch_size, dataset.lengths() if group_by_length else None, rank, world_size, seed, drop_last
    )
    return EpochDataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=PaddingCollator(processor),
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(
            seed
        ),  # its own, so that making an iterator leaves the model's random state alone
        **loader_options,
    )
