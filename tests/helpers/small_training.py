"""A StageTrainer over a very small VLM and samples in memory: what tests of optimisation share."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.helpers.stage_runs import small_vlm
from training.arguments import training_arguments
from training.data.collation import PackingCollator, PaddingCollator
from training.environment import Machine
from training.recipe.loading import load_recipe
from training.trainable import make_trainable
from training.trainer import StageTrainer

ALONE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
WORDS = ("learning_rate=1e-3", "log_steps=1", "watch.report_to=[]", "zero=none", "warmup_ratio=0")


def picture_sample(processor, name: str, answer: str, source: str = "pictures", seed: int = 0) -> dict:
    """A question about a picture, encoded."""
    picture = Image.new("RGB", (64, 32 + 16 * (seed % 3)), (40 * seed % 256, 90, 200 - seed))
    question = [{"type": "image", "image": picture}, {"type": "text", "text": "?"}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {**processor.encode(messages), "sample_id": name, "source": source}


def text_sample(processor, name: str, *answers: str, source: str = "texts") -> dict:
    """A conversation without pictures, a turn an answer, encoded."""
    messages = []
    for answer in answers:
        messages += [{"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": answer}]
    return {**processor.encode(messages), "sample_id": name, "source": source}


def mixed_samples(processor) -> list[dict]:
    """Eight samples with and without pictures, of one to three turns, whose answers differ in length."""
    return [
        picture_sample(processor, "p0", "cat", seed=0),
        text_sample(processor, "t0", "a long answer of many words", "no"),
        text_sample(processor, "t1", "yes"),
        picture_sample(processor, "p1", "an answer about a picture", seed=1),
        text_sample(processor, "t2", "1", "22", "333 333 333"),
        picture_sample(processor, "p2", "b", seed=2),
        text_sample(processor, "t3", "some words"),
        picture_sample(processor, "p3", "green and blue", seed=3),
    ]


def batches_of(processor, samples: Sequence[dict], size: int, packed: int = 0) -> list[dict]:
    """Batches of `size` samples; packed: in rows of so many samples each."""
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    if not packed:
        return [PaddingCollator(processor)(part) for part in parts]
    rows = [[part[start : start + packed] for start in range(0, len(part), packed)] for part in parts]
    return [PackingCollator(processor)(row) for row in rows]


def small_trainer(out: Path, batches: Sequence[dict], *words: str, built=None, callbacks=()) -> StageTrainer:
    """A trainer whose loader yields `batches`, each once a pass. built: `(model, processor)`, default a fresh one."""
    model, processor = built or small_vlm()
    recipe = load_recipe(None, [*WORDS, f"output_dir={out}", *words])
    groups, _ = make_trainable(model, processor, recipe)
    loader = DataLoader(list(batches), batch_size=None, collate_fn=lambda batch: dict(batch))
    return StageTrainer(recipe=recipe, groups=groups, model=model, train_dataset=list(batches), loader=loader,
                        args=training_arguments(recipe, ALONE), processing_class=processor,
                        callbacks=list(callbacks))  # fmt: skip


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
