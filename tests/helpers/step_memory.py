"""A real training step with its memory measured, beside the plan of the same step."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import LlamaConfig, NemotronHConfig, RadioConfig

from llm.prepare import prepare_language_model
from llm.tiny_tokenizer import build_byte_tokenizer
from training.adapters import attach_adapters, finish_adapters
from training.arguments import training_arguments
from training.data.collation import PackingCollator, PaddingCollator
from training.environment import Machine
from training.plan.batch import PlannedBatch
from training.plan.estimate import Machines, plan_stage
from training.plan.live_bytes import LiveBytes
from training.recipe.loading import load_recipe
from training.trainable import make_trainable
from training.trainer import StageTrainer
from vlm.build import build_vlm

MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
WORDS = ("train.zero=none", "precision=fp32", "max_steps=2", "watch.report_to=[]", "log_steps=1")


@dataclass(frozen=True)
class Size:
    """A model and a batch. `words`: characters of each answer; `side`: pixels of each picture; None: no pictures."""

    family: str
    width: int
    text_blocks: int
    vision_width: int
    vision_blocks: int
    samples: int
    words: int
    side: int | None


DEEP_EXAMPLE = Size("nemotron_h", 64, 3, 192, 6, 2, 60, 320)
SIZES = {
    "small hybrid, four pictures": Size("nemotron_h", 128, 6, 64, 2, 4, 200, 128),
    "deep encoder, one large picture each": DEEP_EXAMPLE,
    "wide llama, long text": Size("llama", 192, 4, 64, 2, 2, 900, 96),
}


def tiny_model(size: Size):
    """(model, processor) with random weights."""
    torch.manual_seed(0)
    vision = RadioConfig(
        hidden_size=size.vision_width, num_hidden_layers=size.vision_blocks, num_attention_heads=4, max_img_size=320,
        image_size=320, num_cls_tokens=1, num_registers=3, summary_idxs=[0],
    )  # fmt: skip
    common = {"vocab_size": 384, "hidden_size": size.width, "intermediate_size": 3 * size.width,
              "num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": 0, "bos_token_id": 1,
              "eos_token_id": 4, "max_position_embeddings": 4096}  # fmt: skip
    if size.family == "llama":
        text = LlamaConfig(num_hidden_layers=size.text_blocks, **common)
    else:
        pattern = ("M*-" * size.text_blocks)[: size.text_blocks]
        text = NemotronHConfig(hybrid_override_pattern=pattern, head_dim=size.width // 4, mamba_num_heads=4,
                               mamba_head_dim=size.width // 2, ssm_state_size=32, n_groups=1, chunk_size=64,
                               **common)  # fmt: skip
    geometry = {"mode": "dynamic", "min_num_patches": 4, "max_num_patches": 400}
    return build_vlm(vision, text, build_byte_tokenizer(), geometry=geometry)


def encoded_samples(processor, size: Size) -> list[dict]:
    """Samples of one length."""
    found = []
    for _ in range(size.samples):
        picture = [{"type": "image", "image": Image.new("RGB", (size.side, size.side))}] if size.side else []
        question = {"role": "user", "content": [*picture, {"type": "text", "text": "What is it?"}]}
        found.append(processor.encode([question, {"role": "assistant", "content": "w" * size.words}]))
    return found


def batch_of(batch: dict, packed: bool) -> PlannedBatch:
    """What the plan has to know of a real batch."""
    rows, length = batch["input_ids"].shape
    grids = batch.get("image_grid_hw", torch.empty(0, 2, dtype=torch.long))
    patches = len(batch["pixel_values"]) if "pixel_values" in batch else 0
    return PlannedBatch(rows, length, tuple(map(tuple, grids.tolist())), patches, 0, packed)


def measured_and_planned(size: Size, folder: Path, *words: str, packed: bool = False) -> tuple[float, float]:
    """Bytes at the peak of two real steps (weights, gradients, optimizer, activations, batch), and the plan's."""
    model, processor = tiny_model(size)
    processor.save_pretrained(folder / "model")
    model.config.save_pretrained(folder / "model")
    recipe = load_recipe(None, [*WORDS, f"model={folder / 'model'}", f"output_dir={folder / 'out'}",
                                f"per_device_batch_size={1 if packed else size.samples}", *words])  # fmt: skip
    samples = encoded_samples(processor, size)
    collate = (PackingCollator if packed else PaddingCollator)(processor)
    rows = [samples] if packed else samples  # one row that holds all samples, or a row each
    batches = [rows, rows]
    planned_rows = batch_of(collate(rows), packed)
    plan = plan_stage(recipe, None, Machines(gpus=1, bf16=False), batch=planned_rows)

    args = training_arguments(recipe, MACHINE)
    prepare_language_model(model.language_model)
    model.train()
    model = attach_adapters(model, recipe)
    groups, _ = make_trainable(model, processor, recipe)
    finish_adapters(model, processor, recipe, args)
    loader = DataLoader(batches, batch_size=None, collate_fn=collate)
    trainer = StageTrainer(recipe=recipe, groups=groups, model=model, train_dataset=samples, loader=loader, args=args,
                           processing_class=processor, callbacks=[])  # fmt: skip
    weights = [*model.parameters(), *model.buffers()]
    kept = [value for sample in samples for value in sample.values() if torch.is_tensor(value)]
    memory = LiveBytes([*weights, *kept])
    with memory:
        trainer.train()
    measured = memory.peak + sum(weight.numel() * weight.element_size() for weight in weights)
    return measured, plan.memory["none", plan.checkpointing].total
