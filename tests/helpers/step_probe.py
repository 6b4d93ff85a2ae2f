"""One rank of a small training run under DeepSpeed or DDP, whose every step is written down: what a launcher test of
the update gate, the averages and the loss needs to see from inside.

    deepspeed --num_accelerators 2 tests/helpers/step_probe.py OUT SPOILED_STEP model=FOLDER word ...

Writes OUT/rank<N>.json: logged losses and rates; for each step whether it was skipped, and a checksum of fp32 weights,
moments and averages; whether the gradient check was done; and OUT/weights.pt with rank 0's whole fp32 weights a step.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from tests.helpers.small_training import WORDS, batches_of, mixed_samples  # noqa: E402
from training.arguments import training_arguments  # noqa: E402
from training.environment import limit_threads, prepare_process  # noqa: E402
from training.loading import load_model  # noqa: E402
from training.recipe.loading import load_recipe  # noqa: E402
from training.trainable import make_trainable  # noqa: E402
from training.trainer import StageTrainer  # noqa: E402


def whole(parameter) -> torch.Tensor:
    """The fp32 weight behind a parameter; all ranks ask together."""
    if not hasattr(parameter, "ds_id") and not hasattr(parameter, "_hp_mapping"):
        return parameter.detach().clone()
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(parameter).detach().cpu().clone()


def checksum(value) -> float:
    """Of every tensor in a nest, bit for bit up to order of addition in fp64."""
    if torch.is_tensor(value):
        return value.detach().double().abs().sum().item()
    if isinstance(value, dict):
        return sum(checksum(one) for one in value.values())
    return sum(checksum(one) for one in value) if isinstance(value, (list, tuple)) else 0.0


class Witness(TrainerCallback):
    def __init__(self):
        self.steps, self.weights = [], []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append({name: whole(parameter) for name, parameter in model.named_parameters()})

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        inner = getattr(optimizer, "optimizer", optimizer)
        inner = getattr(inner, "optimizer", inner)
        self.weights.append({name: whole(parameter) for name, parameter in model.named_parameters()})
        self.steps.append({"skipped": self.trainer.step_skipped, "moments": checksum(dict(inner.state)),
                           "ema": checksum(self.trainer.ema.averages)})  # fmt: skip


def main(out: Path, spoiled: int, words: list[str]) -> None:
    machine = prepare_process()
    limit_threads(machine, 1)
    recipe = load_recipe(None, [*WORDS, f"output_dir={out}", *words])
    args = training_arguments(recipe, machine)
    model, processor = load_model(recipe, args)
    groups, table = make_trainable(model, processor, recipe)
    samples = mixed_samples(processor)
    share = recipe.train.per_device_batch_size
    steps = [samples[start : start + share * machine.world_size] for start in range(0, 8, share * machine.world_size)]
    mine = [batches_of(processor, part[machine.rank * share : (machine.rank + 1) * share], share)[0] for part in steps]
    witness = Witness()
    trainer = StageTrainer(
        recipe=recipe, groups=groups, model=model, train_dataset=mine, args=args, processing_class=processor,
        loader=DataLoader(mine, batch_size=None, collate_fn=lambda batch: dict(batch)), callbacks=[witness],
    )  # fmt: skip
    witness.trainer = trainer
    check = trainer.bad_loss.check

    def judged(step, loss, *rest):
        return check(step, loss * float("nan") if step == spoiled else loss, *rest)

    trainer.bad_loss.check = judged
    trainer.train()
    history = [(row["step"], row["loss"], row["learning_rate"]) for row in trainer.state.log_history if "loss" in row]
    sources = trainer.source_losses.read()
    record = {"history": history, "steps": witness.steps, "checked": trainer.gradient_check.done, "sources": sources}
    (out / f"rank{machine.rank}.json").write_text(json.dumps(record))
    if machine.is_main:
        torch.save(witness.weights, out / "weights.pt")


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]
    folder = Path(given[0])
    folder.mkdir(parents=True, exist_ok=True)
    main(folder, int(given[1]), given[2:])
