"""What a stage does for its teacher: a divergence for every batch, and how large it was."""

import logging
from collections.abc import Callable

import torch
from torch import nn

from llm.causal_lm import most_chunks
from training.distillation.divergence import head_divergence
from training.distillation.targets import target_maker
from training.distillation.teacher import Teacher, asked_rows, open_teacher
from training.losses import sample_numbers
from training.ranks import all_ranks
from training.recipe import Distill, Recipe, RecipeError

LOGGER = logging.getLogger("training")


def open_distillation(model: nn.Module, processor, recipe: Recipe, args) -> "Distillation | None":
    """The distillation that a recipe asks for; notes in the recipe who the teacher is.

    Raises:
        RecipeError: as `open_teacher`.
    """
    if not recipe.distill.weight:
        return None
    teacher = open_teacher(model, processor, recipe, args)
    recipe.distill.teacher = recipe.distill.teacher or recipe.model
    return Distillation(recipe.distill, teacher)


class Distillation:
    """Holds the student to its teacher.

    Attributes:
        sums: (3,) since the last `read`: KL of the tokens it was asked of, these tokens, all labelled tokens.
    """

    def __init__(self, settings: Distill, teacher: Teacher):
        self.settings, self.teacher = settings, teacher
        self.targets = target_maker(settings.targets)
        self.sums: torch.Tensor | None = None
        self.seen: set[str] = set()

    def row_loss(self, batch: dict, autocast: Callable) -> Callable:
        """Run the teacher on a batch; returns what the student's language model takes as `row_loss`.

        Args:
            batch: on the device, as the trainer has it. autocast: () -> the context that forward passes run in.
        """
        asked = self._asked(batch)
        inputs = {key: value for key, value in batch.items() if key != "sources"}
        with autocast():
            teacher_rows, teacher_labels = self.teacher.states(inputs, asked)

        def divergence(hidden, targets, weights, language_model) -> torch.Tensor:
            rows = asked_rows(targets, asked)
            labels = targets[rows]
            if not torch.equal(labels, teacher_labels):
                raise RecipeError("distill: teacher and student do not see the same tokens; set distill.weight=0")
            head = language_model.get_output_embeddings()
            found = head_divergence(
                language_model.logits_of, self.teacher.logits, hidden[rows], teacher_rows, labels,
                None if weights is None else weights[rows], self.targets, self.settings.temperature,
                most_chunks(head, len(labels), hidden.device),
            )  # fmt: skip
            figures = (found.each.sum(), found.asked.sum(), targets.ne(-100).sum())
            sums = torch.stack([figure.double() for figure in figures])
            self.sums = sums if self.sums is None else self.sums + sums
            return self.settings.weight * self.settings.temperature**2 * found.total

        return divergence

    def _asked(self, batch: dict) -> torch.Tensor | None:
        """(B, L) bool at the place of labels: those of samples of `distill.sources`; None: all."""
        if self.settings.sources is None:
            return None
        self.seen.update(batch["sources"])
        sources = torch.tensor([name in self.settings.sources for name in batch["sources"]])
        numbers = sample_numbers(batch)
        return sources.to(numbers.device)[numbers]

    def read(self, device: torch.device) -> dict[str, float]:
        """Figures since the last call, over all ranks, which call it together: `distill_kl`, the mean divergence in
        nats (at the temperature, without weight) of a token it was asked of; `distill_share`, the share of these among
        the labelled ones."""
        sums = torch.zeros(3, dtype=torch.float64) if self.sums is None else self.sums
        self.sums = None
        kl, asked, labelled = all_ranks(sums.to(device)).tolist()
        if self.seen and labelled and not asked:
            LOGGER.warning(
                f"distill.sources = {self.settings.sources}: the teacher was asked about no sample since the last log; "
                f"sources here are called {', '.join(sorted(self.seen))}"
            )
        return {"distill_kl": round(kl / max(asked, 1), 6), "distill_share": round(asked / max(labelled, 1), 4)}
