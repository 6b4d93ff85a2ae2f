"""One rank of two that train tiny language models under ZeRO-3 on CPU, and the same steps in one process without
DeepSpeed. Run by tests/llm/test_zero3.py and tests/check/lora_numbers.py through `tests.helpers.zero3_llm`.

argv: rank, port, folder with a model for each case, then cases: `family[:option...]`, options `tied` and `untied`
(in front), `lora`, `head` (an adapter on the output head, and rows that need different numbers of chunks), `spoiled`
(the control: the sharded run starts from another convolution), `plain` (no gradient checkpointing).
"""

import copy
import json
import os
import sys

import torch

rank, port, folder, cases = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed  # noqa: E402
from peft import get_peft_model  # noqa: E402
from transformers.integrations import HfDeepSpeedConfig  # noqa: E402

from llm import load_language_model  # noqa: E402
from llm.lora import check_lora_gradients, lora_config  # noqa: E402
from tests.helpers.tiny_llm import random_ids, seq_idx_of  # noqa: E402

STEPS, LEARNING_RATE = 3, 0.2
# Samples of the one packed row of each rank: no two ranks hold the same layout or the same number of tokens.
ROWS = ([[50, 1, 29]], [[5, 64, 30, 2]])
LONG_ROWS = ([[50, 1, 29]], [[5, 364, 30, 2]])
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,  # the smallest tensors too are in pieces
        "reduce_bucket_size": 5000,
        "stage3_prefetch_bucket_size": 5000,
    },
    "gradient_clipping": 0.0,  # DeepSpeed clips to 1 unless told
    "zero_allow_untested_optimizer": True,
}
torch.set_num_threads(1)
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # plain gloo: nothing to compile
deepspeed.init_distributed("gloo")


def open_model(case: str, options: list[str]) -> torch.nn.Module:
    """The model of the folder, prepared, in training mode; the same adapters on every call."""
    model = load_language_model(f"{folder}/{case}")
    if "lora" in options or "head" in options:
        torch.manual_seed(0)
        targets = ["lm_head", "in_proj", "out_proj"] if "head" in options else None
        model = get_peft_model(model, lora_config(model, rank=4, alpha=8, targets=targets))
    if "plain" not in options:
        model.gradient_checkpointing_enable()
    return model.train()


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def one_process(model: torch.nn.Module, batches: list[dict]) -> list[list[float]]:
    """Losses of each step and batch; a step is that of the mean of all batches."""
    optimizer, losses = sgd(model), []
    for _ in range(STEPS):
        found = [model(**batch).loss for batch in batches]
        (sum(found) / len(found)).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append([loss.item() for loss in found])
    return losses


def run(case: str) -> dict:
    options = case.split(":")
    rows = LONG_ROWS if "head" in options else ROWS
    batches = []
    for number, row in enumerate(rows):
        ids = random_ids(row, seed=number)
        batches.append({"input_ids": ids, "labels": ids, "seq_idx": seq_idx_of(row), "skip_logits": True})
    whole = open_model(case, options)
    before = {name: p.detach().clone() for name, p in trained(whole).items()}
    wanted = one_process(whole, batches)

    keep = HfDeepSpeedConfig(copy.deepcopy(CONFIG))  # alive: from_pretrained then reads into pieces
    model = open_model(case, options)
    if "spoiled" in options:
        name, first = next((n, p) for n, p in model.named_parameters() if n.endswith("conv1d.weight"))
        with deepspeed.zero.GatheredParameters([first], modifier_rank=0):
            first.data.mul_(1.5)
    engine, *_ = deepspeed.initialize(model=model, optimizer=sgd(model), config=copy.deepcopy(CONFIG))
    pieces = [hasattr(p, "ds_id") and p.ds_tensor.numel() < p.ds_numel for p in model.parameters()]
    del keep
    found, adapters = [], None
    for step in range(STEPS):
        loss = engine(**batches[rank]).loss
        engine.backward(loss)
        if step < 2 and len(before) != len(pieces):
            adapters = check_lora_gradients(model)
        engine.step()
        found.append(loss.item())

    moved = {}
    for name, parameter in trained(model).items():
        with deepspeed.zero.GatheredParameters([parameter]):
            reference = dict(whole.named_parameters())[name].detach()
            step_made = (reference - before[name]).norm().item()
            moved[name] = (step_made, (parameter.detach() - reference).norm().item() / max(step_made, 1e-9))
    engine.destroy()
    return {
        "case": case,
        "wanted": [losses[rank] for losses in wanted],
        "found": found,
        "parameters": len(pieces),
        "sharded": sum(pieces),
        "adapters": adapters,
        "moved": moved,
    }


for case in cases:
    sys.stdout.write("RESULT " + json.dumps(run(case)) + "\n")
    sys.stdout.flush()
