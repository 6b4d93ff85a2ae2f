"""LoRA and ZeRO-3 of every family of language models: adapters that learn at step 1, what merging costs, and how far
two sharded ranks are from one process.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

SEEDS = 5
ROWS = [[70, 1, 29], [5, 64, 31]]


def adapted(name: str, seed: int):
    """A prepared tiny model of the family with rank 16 adapters on the layers that the family names. Its weights are
    half as large as those of the tiny configuration, still twice those of published models: there fp32 alone moves
    logits of Jamba's by 1e-5."""
    import torch
    from peft import get_peft_model

    from llm import families
    from llm.lora import lora_config
    from tests.helpers.tiny_llm import native_model, prepared_copy

    config = families()[name].tiny()
    config.initializer_range = 0.05
    model = prepared_copy(native_model(config, seed=seed))
    torch.manual_seed(seed)
    return get_peft_model(model, lora_config(model))


def adapters_reached(name: str) -> float:
    """Share of the adapters, those of shared layers counted once, with a gradient other than zero at step 1."""
    from torch import nn

    from llm import families
    from llm.lora import lora_pairs
    from tests.helpers.tiny_llm import native_model, random_ids, seq_idx_of

    targets = families()[name].lora_targets
    layers = {
        id(module.weight) for path, module in native_model(name).named_modules()
        if isinstance(module, nn.Linear) and path.split(".")[-1] in targets
    }  # fmt: skip
    model = adapted(name, 0).train()
    ids = random_ids(ROWS)
    model(input_ids=ids, labels=ids, seq_idx=seq_idx_of(ROWS), skip_logits=True).loss.backward()
    reached = [b for _, a, b in lora_pairs(model) if a.grad is not None and b.grad is not None and b.grad.any()]
    return len(reached) / len(layers)


def merge_error(name: str) -> float:
    """Largest change of a logit by merging random adapters, the largest of several models."""
    import torch

    from llm.lora import lora_pairs
    from tests.helpers.tiny_llm import difference, random_ids

    errors = []
    for seed in range(SEEDS):
        model, ids = adapted(name, seed).eval(), random_ids(ROWS, seed=seed)
        with torch.no_grad():
            silent = model(input_ids=ids).logits
            for _, _, b in lora_pairs(model):
                b.normal_(std=0.03)
            expected = model(input_ids=ids).logits
            assert difference(expected, silent) > 0.5, "the adapters do too little"
            errors.append(difference(model.merge_and_unload()(input_ids=ids).logits, expected))
    return max(errors)


def zero3_differences(out: Path) -> dict[str, float]:
    """Family -> largest difference of a loss, over steps and ranks, between ZeRO-3 and one process."""
    from llm import families
    from tests.helpers.zero3_llm import run_ranks

    out.mkdir(parents=True, exist_ok=True)
    found = run_ranks(list(families()), out, timeout=600)
    return {
        name: max(abs(a - b) for rank in ranks for a, b in zip(rank["found"], rank["wanted"]))
        for name, ranks in found.items()
    }


def lora_numbers(out: Path) -> list[Number]:
    from llm import families

    sharded = zero3_differences(out)
    rows = []
    for name in families():
        loss = "one packed batch, loss without logits"
        rows.append(Number(f"LoRA {name}: adapters reached / total", ">= 1", adapters_reached(name), loss))
        merged = f"merge_and_unload, rank 16, {SEEDS} models, fp32"
        rows.append(Number(f"LoRA {name}: largest change of a logit by merging", "<= 1e-5", merge_error(name), merged))
        ranks = "tests.helpers.zero3_llm_rank, 2 ranks, 3 steps, fp32"
        rows.append(Number(f"ZeRO-3 {name}: largest difference of a loss", "<= 1e-4", sharded[name], ranks))
    return rows


if __name__ == "__main__":
    print(table(lora_numbers(Path(sys.argv[1]))))
