"""An expert session over pictures that do not say what they are, because the dataset does: PNG files of X-rays, say.

`chat` offers an expert by the modality in a DICOM header, which such files have not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlm.experts import Expert, ExpertCard, ExpertSession


class KnownModality(ExpertSession):
    """Offers the experts for `modalities` (DICOM codes) with every picture."""

    def __init__(
        self, modalities: Sequence[str], max_calls: int, instances: dict[str, Expert], weights: str | None = None
    ) -> None:
        super().__init__(max_calls=max_calls, instances=instances, weights=weights)
        self.modalities = tuple(modalities)

    def fitting(self, path: Path | None, stated: str | None = None) -> list[ExpertCard]:
        return self.for_modalities() if path is not None else []

    def for_modalities(self) -> list[ExpertCard]:
        """Cards of the experts that read one of the modalities."""
        return [card for card in self.cards.values() if set(card.modalities) & set(self.modalities)]
