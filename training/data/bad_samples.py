"""What happens to samples that cannot be used: skipped, counted, written down with their ids, and too many of them stop
the run.

One line a bad sample goes to `bad_samples.jsonl`, appended by every rank and every worker process, so the file, not
this object, is the whole account; `report` reads it back.
"""

import json
import logging
import math
import os
from collections import Counter
from pathlib import Path

from vlm.errors import RadioVLMError, SampleError

logger = logging.getLogger(__name__)
SHARE_COUNTS_FROM = 100  # samples; one bad among the first three is not 33 %
DEVIATIONS = 3.0
SHOWN = 10


class TooManyBadSamples(RadioVLMError):
    """More than the allowed share of the samples is bad."""


class BadSamples:
    """Counts the bad among the samples of one process. `size`: number of samples in the set, None for a stream;
    `share_limit`: 0 stops at the first.
    """

    def __init__(self, size: int | None, share_limit: float, path: str | Path | None = None):
        if not 0 <= share_limit <= 1:
            raise RadioVLMError(f"data.bad_share_limit must be between 0 and 1, this is {share_limit}")
        self.size, self.share_limit = size, share_limit
        self.path = Path(path) if path else None
        self.seen = bytearray(size or 0)
        self.num_seen = 0
        self.bad: dict[int | str, dict[str, str | None]] = {}

    def knows(self, index: int | None) -> bool:
        """Whether the sample of a static index was found bad."""
        return index in self.bad

    def good(self, index: int | None) -> None:
        """Counts a sample that was seen; of a stream (None) each time it passes."""
        if index is None:
            self.num_seen += 1
        elif not self.seen[index]:
            self.seen[index] = 1
            self.num_seen += 1

    def add(self, index: int | None, error: SampleError, where: str) -> None:
        """Counts a sample as bad (once; of a stream, where it has no static index, by its place and id). Raises
        TooManyBadSamples when the share is above the limit."""
        self.good(index)
        index = f"{where} {error.sample_id}" if index is None else index
        if index in self.bad:
            return
        row = {
            "id": error.sample_id,
            "where": where,
            "path": error.path,
            "reason": error.reason,
            "message": error.message,
        }
        self.bad[index] = row
        logger.warning("bad sample skipped: %s: sample %r: %s", where, error.sample_id, error.message)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps(row, ensure_ascii=False) + "\n"
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(file, line.encode())  # one write: lines of several processes do not mix
            finally:
                os.close(file)
        if len(self.bad) > self.allowed():
            raise TooManyBadSamples(self._too_many()) from error

    def allowed(self) -> float:
        """How many bad samples are no proof yet that the share in the whole set is above the limit.

        Exact once all samples were seen; before, three standard deviations of drawing `num_seen` of `size` without
        replacement are added, so that bad luck at the start does not end a run whose data are good enough.
        """
        drawn = max(self.num_seen, SHARE_COUNTS_FROM if self.size is None else min(self.size, SHARE_COUNTS_FROM))
        unseen = 1 if self.size is None else 1 - drawn / self.size
        variance = drawn * self.share_limit * (1 - self.share_limit) * unseen
        return self.share_limit * drawn + DEVIATIONS * math.sqrt(variance)

    def _too_many(self) -> str:
        reasons = ", ".join(
            f"{count} {reason}" for reason, count in Counter(row["reason"] for row in self.bad.values()).most_common()
        )
        examples = "\n".join(
            f"  {row['where']}: sample {row['id']!r}: {row['message']}" for row in list(self.bad.values())[:SHOWN]
        )
        total = "" if self.size is None else f" (of {self.size})"
        return (
            f"{len(self.bad)} of the first {self.num_seen} samples{total} are bad ({reasons}): more than "
            f"data.bad_share_limit={self.share_limit:g} allows:\n{examples}\n"
            "`radio-vlm check-data` lists them all; mend the data, or raise the limit to train without them"
        )

    def start_over(self) -> None:
        """Forgets the file of an earlier run: its samples may be mended. For one process, before any reads samples."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def report(self) -> dict:
        """{"num_bad", "share" (of the set; of a stream: of what this process saw), "reasons": {reason: count}, "ids",
        "path"} over all processes that share the file.
        """
        rows = {(row["where"], row["id"]): row for row in self.bad.values()}
        if self.path is not None and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                rows[(row["where"], row["id"])] = row
        return {
            "num_bad": len(rows),
            "share": len(rows) / max(self.num_seen if self.size is None else self.size, 1),
            "reasons": dict(Counter(row["reason"] for row in rows.values())),
            "ids": sorted(str(row["id"]) for row in rows.values()),
            "path": str(self.path) if self.path is not None and rows else None,
        }
