"""transformers.Trainer with the few things a staged VLM needs: our optimizer groups, our loader, counting.

Checkpoints, resume, schedules and DeepSpeed stay the library's. `_save_checkpoint` is deliberately not overridden:
doing that is how other trainers lose the ability to resume their first stage.
"""

import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer

from training.adapters import load_checkpoint
from training.optimizers import build_optimizer
from training.recipe import Recipe
from training.saving import write_model
from training.watch.throughput import Throughput

NOT_FOR_THE_MODEL = ("sources",)


class StageTrainer(Trainer):
    """Trainer of one stage."""

    def __init__(self, *, recipe: Recipe, groups: list[dict], loader: DataLoader, **kwargs):
        """groups: optimizer groups of the unwrapped model. loader: already sharded over the ranks."""
        self.recipe, self.groups, self.loader = recipe, groups, loader
        super().__init__(**kwargs)
        self.throughput = Throughput(self.args.device)

    def get_train_dataloader(self) -> DataLoader:
        """The stage's loader as it is: accelerate would shard it a second time."""
        return self.loader

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One optimizer over the groups; under ZeRO it will see flat shards of them."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.groups, self.recipe, partitioned=self.is_deepspeed_enabled)
        return self.optimizer

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """As the library's, with the waiting time and what came counted."""
        started = time.perf_counter()
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        waited = time.perf_counter() - started
        for batch in batches:
            self.throughput.add(batch, waited / len(batches))
        return batches, count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As the library's: the model divides its summed loss by the labelled tokens of all ranks and micro-batches."""
        inputs = {key: value for key, value in inputs.items() if key not in NOT_FOR_THE_MODEL}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _prepare_input(self, data):
        """Move to the device but keep dtypes: pixels stay fp32 until the encoder has normalised them."""
        return data.to(self.args.device) if isinstance(data, torch.Tensor) else data

    def _prepare_inputs(self, inputs):
        return {key: self._prepare_input(value) for key, value in inputs.items()}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The model of a checkpoint, without the library's copy of all weights on every rank."""
        write_model(self, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """As the library's, which knows no adapters but those of a wrapped model."""
        if not self.recipe.adapter.rank:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        return load_checkpoint(self.model, resume_from_checkpoint)

    def floating_point_ops(self, inputs) -> int:
        """Not estimated here: the library's formula walks all parameters at every step and knows no images."""
        return 0
