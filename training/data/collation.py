"""Encoded samples -> batches: a padding and a packing collator, and the order that puts similar lengths side by side.

The sampler deals the same number of batches to every rank, from one order that all ranks compute alike; they never talk
to each other.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vlm.errors import RadioVLMError

EXTRA_KEYS = ("sample_id", "source")
# Batches are cut from so many global batches' worth of shuffled samples, sorted: similar lengths, still well mixed.
GROUP = 32


class PaddingCollator:
    """A list of encoded samples -> one batch of `processor.collate`, plus "sample_ids" and "sources" (lists of str)."""

    def __init__(self, processor: Any, padding_side: str = "right"):
        self.processor, self.padding_side = processor, padding_side

    def __call__(self, encoded: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = self.processor.collate([_plain(one) for one in encoded], padding_side=self.padding_side)
        return {**batch, **_names(encoded)}


class PackingCollator:
    """Rows of encoded samples -> one batch of `processor.collate_packed`, plus "sample_ids" and "sources", one a sample
    in order."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, rows: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        samples = [one for row in rows for one in row]
        return {**self.processor.collate_packed([[_plain(one) for one in row] for row in rows]), **_names(samples)}


def nothing_to_learn(processor: Any) -> dict[str, Any]:
    """A sample of one token without a label: it stands where all samples of a batch were bad, so that every rank still
    takes part in the step."""
    token = processor.collate_packed([[{"input_ids": torch.zeros(0, dtype=torch.long)}]])["input_ids"][0]
    return {
        "input_ids": token,
        "mm_token_type_ids": torch.zeros_like(token),
        "labels": torch.full_like(token, -100),
        "sample_id": "",
        "source": "",
    }


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key not in EXTRA_KEYS}


def _names(encoded: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    return {f"{key}s": [one.get(key, "") for one in encoded] for key in EXTRA_KEYS}


class GroupedBatchSampler:
    """Batches of static indices for one rank, epoch by epoch.

    order: epoch -> (N,) indices; lengths: (num_samples,) or None for no grouping. accumulation: batches of an optimizer
    step. A step's samples are the same however many ranks and batches they are split into: rank r takes every
    world_size-th from r on and cuts its share into batches. What does not fill a step becomes one smaller step, whose
    batches are of equal size (`drop_last` leaves it out); fewer than world_size · accumulation samples an epoch are
    left over, other ones each epoch.
    """

    def __init__(
        self,
        order: Callable[[int], np.ndarray],
        batch_size: int,
        lengths: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        drop_last: bool = False,
        accumulation: int = 1,
    ):
        if batch_size < 1 or not 0 <= rank < world_size:
            raise RadioVLMError(f"batch_size={batch_size}, rank={rank}, world_size={world_size} make no batches")
        self.order, self.lengths, self.batch_size = order, lengths, batch_size
        self.rank, self.world_size, self.seed, self.drop_last = rank, world_size, seed, drop_last
        self.accumulation = accumulation
        self.size = len(order(0))
        if len(self) == 0:
            raise RadioVLMError(
                f"{self.size} samples are too few for {world_size} ranks with batches of {batch_size}"
                + f" and gradient accumulation over {accumulation}" * (accumulation > 1)
                + " and drop_last" * drop_last
            )

    @property
    def width(self) -> int:
        """Samples of one optimizer step over all ranks."""
        return self.batch_size * self.parts

    @property
    def parts(self) -> int:
        """Batches of one optimizer step over all ranks."""
        return self.world_size * self.accumulation

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        full, rest = divmod(self.size, self.width)
        return (full + (rest >= self.parts and not self.drop_last)) * self.accumulation

    def batches(self, epoch: int, done: Sequence[tuple[int, int]] = ()) -> Iterator[list[int]]:
        """This rank's batches of an epoch.

        done: (width, steps) of runs of other widths that took so many steps from the epoch before this one.
        """
        order = self.order(epoch)
        for width, count in done:
            taken = np.concatenate([np.empty(0, dtype=np.int64), *self._places(order, epoch, width)[:count]])
            order = np.delete(order, taken)
        for places in self._places(order, epoch, self.width):
            mine = order[places][self.rank :: self.world_size]
            yield from (part.tolist() for part in mine.reshape(self.accumulation, -1))

    def _places(self, order: np.ndarray, epoch: int, width: int) -> list[np.ndarray]:
        """The steps of an epoch: (width,) places in `order` each."""
        whole = len(order) // width * width
        batches: list[np.ndarray] = []
        for start in range(0, whole, width * GROUP):
            group = np.arange(start, min(start + width * GROUP, whole))
            if self.lengths is not None:
                group = group[np.argsort(-self.lengths[order[group]], kind="stable")]
            batches += list(group.reshape(-1, width))
        batches = [batches[i] for i in np.random.default_rng([self.seed, 3, epoch]).permutation(len(batches))]
        rest = (len(order) - whole) // self.parts * self.parts
        if rest and not self.drop_last:
            batches.append(np.arange(whole, whole + rest))
        return batches
