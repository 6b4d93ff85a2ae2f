"""Replay: data of earlier stages mixed into a stage, so that what they taught is not forgotten."""

from dataclasses import dataclass, field

from training.recipe.checks import check_ranges, require
from training.recipe.source import Source

DEFAULT_SHARE = 0.5


@dataclass
class Replay:
    """Data of earlier stages that are read beside data.sources. An epoch reads data.sources as it would without them,
    and so many of these that they make `share` of all samples."""

    sources: list[Source] = field(default_factory=list)
    """What is read again: a list as data.sources, or a YAML file with one. Weights or repeats count among these
    sources alone."""
    share: float | None = None
    """How much of all samples comes from these sources; default: 0.5 where there are any. 0: none (plain
    fine-tuning)."""

    def __post_init__(self) -> None:
        check_ranges(self, "data.replay.{}", {"[0, 1)": ("share",)})
        require(
            not self.share or bool(self.sources),
            f"data.replay.share = {self.share} and data.replay.sources is empty: list what is to be read again, or set "
            "data.replay.share=0",
        )
        for source in self.sources:
            require(
                source.cap is None,
                f"cap of {source.path} in data.replay.sources: data.replay.share says how many samples are read; leave "
                "cap out, or use limit",
            )

    @property
    def part(self) -> float:
        """The share in force: 0 without sources."""
        if not self.sources:
            return 0.0
        return DEFAULT_SHARE if self.share is None else self.share
