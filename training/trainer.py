"""transformers.Trainer with the few things a staged VLM needs: our optimizer groups, loader, loss weights and guards.

Checkpoints, resume, schedules and DeepSpeed stay the library's. `_save_checkpoint` is deliberately not overridden:
doing that is how other trainers lose the ability to resume their first stage.
"""

import itertools
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from training.adapters import load_checkpoint
from training.distillation.session import Distillation
from training.ema import EmaCallback
from training.gradient_check import GradientCheck
from training.losses import loss_weight, token_weights
from training.optimizers import build_optimizer
from training.ranks import all_ranks, world_size
from training.recipe import Recipe
from training.saving import write_model
from training.schedules import build_scheduler
from training.source_losses import SourceLosses
from training.update_gate import GatedEngine, gradients_overflow
from training.watch.bad_loss import BadLossGuard
from training.watch.throughput import Throughput

NOT_FOR_THE_MODEL = ("sources",)


class StageTrainer(Trainer):
    """Trainer of one stage.

    Attributes:
        source_losses: loss per source since it was last read.
        bad_loss: judges every step before its update; gradient_check: the first steps' gradients.
        ema: the averaged weights, with `train.ema_decay`, from the start of training on.
        current_batch_ids, current_batch_sources: samples of this rank's micro-batches of the running step, in order.
        step_skipped: whether the last step was left out.
    """

    def __init__(
        self, *, recipe: Recipe, groups: list[dict], loader: DataLoader, distillation: Distillation | None = None,
        **kwargs,
    ):  # fmt: skip
        """groups: optimizer groups of the unwrapped model. loader: already sharded over the ranks. distillation: asks a
        teacher about every batch."""
        self.recipe, self.groups, self.loader, self.distillation = recipe, groups, loader, distillation
        super().__init__(**kwargs)
        self.throughput = Throughput(self.args.device)
        self.source_losses = SourceLosses()
        self.bad_loss = BadLossGuard(recipe.watch.bad_loss, recipe.watch.spike_factor, Path(recipe.output_dir))
        self.gradient_check = GradientCheck(self.model, groups)
        self.current_batch_ids: list[str] = []
        self.current_batch_sources: list[str] = []
        self.step_skipped = False
        self._step_loss, self._step_has = torch.zeros((), device=self.args.device), (False, False)
        self.ema, self.resume_folder = None, None
        self.add_callback(_GateInstaller(self))
        if recipe.train.ema_decay is not None:
            self.add_callback(EmaCallback(self, recipe.train.ema_decay))

    def train(self, resume_from_checkpoint: str | None = None, **kwargs):
        """As the library's; remembers what it resumes from."""
        self.resume_folder = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """The stage's loader as it is: accelerate would shard it a second time."""
        return self.loader

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One optimizer over the groups; under ZeRO it will see flat shards of them."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.groups, self.recipe, partitioned=self.is_deepspeed_enabled)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Our schedules (`training.schedules`), over all groups."""
        if self.lr_scheduler is None:
            self.lr_scheduler = build_scheduler(optimizer or self.optimizer, self.recipe.train)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of a step, with their loss weights, and what divides the summed loss: the targets, or their
        weights, of all micro-batches and ranks. The library's count would take in labels that are no targets."""
        started = time.perf_counter()
        batches = list(itertools.islice(epoch_iterator, num_batches))
        waited = time.perf_counter() - started
        count = torch.zeros((), dtype=torch.float64)
        self.current_batch_ids, self.current_batch_sources = [], []
        for batch in batches:
            self.throughput.add(batch, waited / len(batches))
            weights = token_weights(batch, self.recipe.train.loss_average)
            if weights is not None:
                batch["token_weights"] = weights
            count += loss_weight(batch).cpu()
            ids = batch.get("sample_ids") or [""] * len(batch["input_ids"])
            self.current_batch_ids += ids
            self.current_batch_sources += batch.get("sources") or [""] * len(ids)
        media = any(batch.get(key) is not None for batch in batches for key in ("pixel_values", "pixel_values_videos"))
        self._step_loss, self._step_has = torch.zeros((), device=device), (count.item() > 0, media)
        return batches, all_ranks(count.float().to(device))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As the library's: the model divides its summed loss by the count of all ranks and micro-batches. It is added
        up by source; the losses of single tokens, which the fastest losses do not tell, are asked for where the sum
        alone does not say it."""
        given = {key: value for key, value in inputs.items() if key not in NOT_FOR_THE_MODEL}
        sources = set(inputs.get("sources") or ())
        whole = not sources or (len(sources) == 1 and self._loss_is_cross_entropy(inputs))
        given |= {"z_loss": self.recipe.train.z_loss, "return_token_losses": not whole}
        if self.distillation is not None:
            given["row_loss"] = self.distillation.row_loss(inputs, self.accelerator.autocast)
        loss, outputs = super().compute_loss(model, given, True, num_items_in_batch)
        if whole:
            self.source_losses.add_whole(inputs, loss.detach() * num_items_in_batch / world_size())
        else:
            self.source_losses.add(inputs, outputs.get("token_losses"))
        self._step_loss = self._step_loss + loss.detach()
        return (loss, outputs) if return_outputs else loss

    def _loss_is_cross_entropy(self, inputs: dict) -> bool:
        """Whether the loss of a batch is the cross entropy of its targets, unweighted and with nothing added."""
        if inputs.get("token_weights") is not None or self.recipe.train.z_loss or self.distillation is not None:
            return False
        return getattr(getattr(self.model, "language_model", None), "adds_nothing_to_the_loss", False)

    def may_update(self, norm: float | None = None) -> bool:
        """Between the last backward of a step and its update, on every rank: is this update to be made?

        Args:
            norm: of the reduced gradients; None under DeepSpeed, which has it later: there they are asked themselves.
        """
        step = self.state.global_step + 1
        samples = (self.current_batch_ids, self.current_batch_sources)
        verdicts = [self.bad_loss.check(step, self._step_loss, *samples)]
        if verdicts[0] != "skip":
            deepspeed = norm is None
            if deepspeed:
                norm = float("inf") if gradients_overflow(self.model_wrapped) else 0.0
            verdicts.append(self.bad_loss.check_gradients(step, norm, *samples, useless=deepspeed))
        self.step_skipped = "skip" in verdicts
        if not self.step_skipped and not self.gradient_check.done:
            self.gradient_check.check(*self._step_has, self.args.device)
        return not self.step_skipped

    def _get_grad_norm(self, model, grad_norm=None):
        """As the library's; asked between clipping and update, which makes it the place for the question above."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not self.is_deepspeed_enabled and not self.may_update(float(norm)):
            model.zero_grad(set_to_none=True)  # without gradients the optimizers change neither weights nor moments
        return norm

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


class _GateInstaller(TrainerCallback):
    """Puts `may_update` between DeepSpeed's backward and its step, once the engine is there."""

    def __init__(self, trainer: StageTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer.is_deepspeed_enabled:
            accelerator = self.trainer.accelerator
            accelerator.deepspeed_engine_wrapped = GatedEngine(self.trainer.model_wrapped, self.trainer.may_update)
