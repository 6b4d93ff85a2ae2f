"""What a step of the trainer sees: the token mean of the whole accumulated batch, and the order of its own epoch."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from tests.helpers.data_folders import record, write_records
from tests.helpers.small_training import batches_of, mixed_samples, small_trainer
from tests.helpers.stage_runs import losses, save_small_vlm, small_vlm
from training.arguments import training_arguments
from training.data.collation import PaddingCollator
from training.environment import Machine
from training.optimizers import build_param_groups
from training.recipe.loading import load_recipe
from training.stage import train_stage
from training.trainer import StageTrainer

MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
WORDS = ("max_grad_norm=0", "learning_rate=1e-3", "log_steps=1", "watch.report_to=[]", "group_by_length=false")


def gradients(batch_size: int, accumulation: int, out: Path) -> dict[str, torch.Tensor]:
    """Gradients of the first step over the same four samples, whose answers differ in length."""

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            kept.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    kept: dict[str, torch.Tensor] = {}
    model, processor = small_vlm()
    words = (f"gradient_accumulation_steps={accumulation}", f"per_device_batch_size={batch_size}", "max_steps=1")
    recipe = load_recipe(None, [*WORDS, *words, f"output_dir={out}"])
    samples = [
        processor.encode([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "word " * n}])
        for n in (1, 9, 2, 5)
    ]
    trainer = StageTrainer(
        recipe=recipe, groups=build_param_groups(model, recipe), model=model, train_dataset=samples,
        loader=DataLoader(samples, batch_size, collate_fn=PaddingCollator(processor)),
        args=training_arguments(recipe, MACHINE), processing_class=processor, callbacks=[Keep()],
    )  # fmt: skip
    trainer.train()
    return kept


def test_accumulated_batches_give_the_gradient_of_the_whole(tmp_path):
    """A mean of means would weigh the tokens of short answers more."""
    whole, halves, singles = (gradients(size, 4 // size, tmp_path) for size in (4, 2, 1))
    assert len(whole) > 10 and any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    for parts in (halves, singles):
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-3, msg=name)


def test_under_deepspeed_a_bad_gradient_leaves_the_step_out_also_where_it_is_only_warned_of(tmp_path, monkeypatch):
    """DeepSpeed throws such an update away in any case; ended as a skipped step the schedule does not wait for it."""
    import training.trainer as module

    built = small_vlm()
    batches = batches_of(built[1], mixed_samples(built[1]), 8)
    trainer = small_trainer(tmp_path, batches, "watch.bad_loss=warn", built=built)
    monkeypatch.setattr(trainer.gradient_check, "check", lambda *args: None)  # there are no gradients at all
    monkeypatch.setattr(module, "gradients_overflow", lambda engine: True)
    assert not trainer.may_update() and trainer.step_skipped
    assert trainer.may_update(float("inf")) and not trainer.step_skipped  # without DeepSpeed: as asked
    monkeypatch.setattr(module, "gradients_overflow", lambda engine: False)
    assert trainer.may_update() and not trainer.step_skipped


def test_resume_in_a_later_epoch_goes_on_in_the_order_of_that_epoch(tmp_path):
    save_small_vlm(tmp_path / "stage0")
    write_records(tmp_path / "data", [record(f"s{i}", question=f"{i}?", answer=str(10 + 7 * i) * (i % 3 + 1))
                                      for i in range(6)])  # fmt: skip

    def run(out: str, *words: str) -> dict[int, float]:
        common = (f"model={tmp_path / 'stage0'}", f"data.sources=[{{path: {tmp_path / 'data'}}}]", "max_steps=10")
        words = (*WORDS, *common, "per_device_batch_size=1", "save_steps=8", f"output_dir={tmp_path / out}", *words)
        train_stage(load_recipe(None, list(words)), MACHINE)
        return losses(tmp_path / out)

    whole = run("whole")
    resumed = run("resumed", f"resume={tmp_path / 'whole/checkpoint-8'}")
    assert json.loads((tmp_path / "whole/checkpoint-8/data_state_rank0.json").read_text())["epoch"] == 1
    assert resumed == pytest.approx(whole, rel=1e-6)
