"""What is wrong with a dataset, one entry a fault; a million of them cost no more memory than a thousand."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

EXAMPLES = 20  # kept in memory a reason


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `where`: file:line; `file`: the medium or data file at fault; `reason`: short code."""

    source: str
    where: str
    id: str | None
    reason: str
    message: str
    file: str | None = None


class ProblemLog:
    """All problems in the order of their discovery, kept in an unnamed temporary file; a few of each reason in memory.

    Attributes:
        counts: Problems by reason.
        examples: The first `EXAMPLES` of each reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Problem]] = {}
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115

    def add(self, problem: Problem) -> None:
        self.counts[problem.reason] += 1
        kept = self.examples.setdefault(problem.reason, [])
        if len(kept) < EXAMPLES:
            kept.append(problem)
        self._file.write(json.dumps(asdict(problem)) + "\n")

    def __len__(self) -> int:
        return self.counts.total()

    def __iter__(self) -> Iterator[Problem]:
        self._file.seek(0)
        for line in self._file:
            yield Problem(**json.loads(line))
