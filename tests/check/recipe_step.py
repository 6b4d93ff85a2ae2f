"""One stage step of a recipe with random weights: seconds, memory and what the plan said of it. For GPUs; a tiny recipe
shows on a CPU that it runs.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

RECIPE = ROOT / "training/recipes/nemotron_h_4b_c_radio_v4_so400m"
STAGE = "sft.yaml"
WORDS = ("max_steps=6", "global_batch_size=null", "save_steps=0", "watch.report_to=[]", "log_steps=1")


def packed_batch(model, planned) -> dict:
    """Random tokens and pixels of a `training.plan.batch.PlannedBatch`, samples of 2,048 tokens."""
    import torch

    shape = (planned.rows, planned.length)
    types = torch.zeros(planned.tokens, dtype=torch.long)
    types[: planned.image_tokens] = 1
    types = types.view(shape)
    ids = torch.randint(5, 300, shape).masked_fill(types == 1, model.config.image_token_id)
    samples = (torch.arange(planned.length) // 2048).expand(shape).to(torch.int32)
    names = [f"sample {i}" for i in range(planned.rows * (int(samples.max()) + 1))]
    return {
        "input_ids": ids, "labels": ids.masked_fill(types == 1, -100), "mm_token_type_ids": types, "seq_idx": samples,
        "attention_mask": torch.ones(shape, dtype=torch.long), "image_grid_hw": torch.tensor(planned.grids),
        "pixel_values": torch.rand(planned.patches, model.config.vision_config.patch_dim),
        "sample_ids": names, "sources": ["random"] * len(names),
    }  # fmt: skip


def measure(recipe, build: dict, device: str):
    """(median seconds of a step, bytes at the peak or None, the plan) of six steps in this process."""
    import torch

    from llm.prepare import prepare_language_model
    from training.arguments import training_arguments
    from training.environment import Machine
    from training.plan.estimate import Machines, plan_stage
    from training.plan.models import hold_in_bf16, of_parts
    from training.trainable import make_trainable
    from training.trainer import StageTrainer

    name = torch.cuda.get_device_name() if device == "cuda" else "H100"
    planned = plan_stage(recipe, build, Machines(gpus=1, device=name, bf16=device == "cuda"))
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": os.environ.get("MASTER_PORT", "29511")})  # fmt: skip
    args = training_arguments(recipe, Machine(rank=0, local_rank=0, world_size=1, device=device, launched=True))
    torch.manual_seed(0)
    model, processor = of_parts(build, device)
    if device == "cuda":
        hold_in_bf16(model)
    model.language_model.config.use_cache = False
    prepare_language_model(model.language_model)
    model.train()
    groups, _ = make_trainable(model, processor, recipe)
    batches = [packed_batch(model, planned.batch)] * (recipe.train.max_steps + 1)
    trainer = StageTrainer(recipe=recipe, groups=groups, model=model, train_dataset=batches, args=args,
                           loader=torch.utils.data.DataLoader(batches, batch_size=None),
                           processing_class=processor, callbacks=[])  # fmt: skip
    seconds: list[float] = []
    step = trainer.training_step

    def timed(*arguments, **options):
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter())
        return step(*arguments, **options)

    trainer.training_step = timed
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return statistics.median(b - a for a, b in zip(seconds[1:], seconds[2:])), peak, planned


def recipe_step_numbers(out: Path) -> list[Number]:
    """Rows of a CUDA device that holds the 4B recipe; none elsewhere."""
    import torch

    from training.flops import device_tflops
    from training.pipeline.folder import read_folder
    from training.recipe.loading import load_recipe

    if not torch.cuda.is_available() or torch.cuda.get_device_properties(0).total_memory < 130e9:
        return []
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(RECIPE / STAGE, [*WORDS, f"output_dir={folder}"])
        seconds, peak, plan = measure(recipe, read_folder(RECIPE).build, "cuda")
    name = torch.cuda.get_device_name()
    command = f"{RECIPE.name}/{STAGE}, {plan.batch.tokens} packed tokens, random weights, {name}"
    held = plan.memory[plan.zero, plan.checkpointing].total
    rows = [
        Number("4B recipe, a step: measured peak GB", "", peak / 2**30, command),
        Number("4B recipe, a step: |plan / measured - 1|", "<= 0.1", abs(held / peak - 1), command),
        Number("4B recipe, a step: tokens a second", "", plan.batch.tokens / seconds, command),
    ]
    if device_tflops(name):
        flops = plan.flops / plan.tokens_per_step * plan.batch.tokens
        rows.append(Number("4B recipe, a step: MFU", "", flops / seconds / device_tflops(name) / 1e12, command))
    return rows


if __name__ == "__main__":
    print(table(recipe_step_numbers(Path("runs/check"))) or "needs a CUDA device with 141 GB")
