"""The questions of `chest_xray` with an expert on offer, as VILA-M3 asks them with its chest X-ray classifiers.

The expert is called by the model, through the code that serves `chat`; VILA-M3's with-expert figures paste its list
into every prompt instead. Controls: the expert withheld; the expert reading another patient's image, for which the
answer differs. A model that gains from the expert loses with the wrong one.

`chat` offers an expert by the modality in a DICOM header. Pictures of this benchmark have none: that they are chest
X-rays is known from the dataset, so the experts for digital and computed radiography (DX, CR) are offered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eval.data import Dataset, Sample
from eval.generation import Generator
from eval.tasks.base import Options, Row
from eval.tasks.chest_xray import ChestXray
from eval.tasks.expert_conversation import MAX_CALLS, ExpertConversation
from eval.tasks.registry import register_task

if TYPE_CHECKING:
    from eval.known_modality import KnownModality
    from vlm.experts import Expert

MODALITIES = ("DX", "CR")


@register_task
class ChestXrayExpert(ExpertConversation, ChestXray):
    name = "chest_xray_expert"
    max_new_tokens = 32  # a trigger with an argument is longer than yes or no

    def __init__(self, dataset: Dataset | None = None, instances: Mapping[str, Expert] | None = None) -> None:
        """`instances`: ready-made experts by name, beside the registered ones."""
        super().__init__(dataset)
        self.instances = dict(instances or {})

    def check(self, options: Options) -> None:
        """Raises ValueError when no expert reads chest X-rays: such a run would look like one with a poor expert."""
        session = self.session(options)
        if not session.for_modalities():
            known = ", ".join(f"{card.name} ({card.modality})" for card in session.cards.values()) or "none at all"
            raise ValueError(
                f"task {self.name}: no expert reads chest X-rays (modality {' or '.join(MODALITIES)}); known: {known}."
                " Register one in a file of vlm/experts, name its weights with --expert-weights, or run chest_xray,"
                " which asks without an expert"
            )

    def session(self, options: Options) -> KnownModality:
        from eval.known_modality import KnownModality

        return KnownModality(MODALITIES, MAX_CALLS, self.instances, options.expert_weights)

    def offered(self, options: Options) -> list[str]:
        return [card.name for card in self.session(options).for_modalities()]

    def run(self, samples: Sequence[Sample], generator: Generator, options: Options) -> list[Row]:
        self.fitting = self.offered(options)
        return super().run(samples, generator, options)

    def wanted_expert(self, sample: Sample, called: str | None) -> str | None:
        """Every question wants one; where several fit, any of them is right."""
        return called if called in self.fitting else self.fitting[0]
