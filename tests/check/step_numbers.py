"""Tokens a second and model-flops utilisation of whole training steps of a 4.5B hybrid: random weights, bf16, one
packed row of 8192 tokens, gradient checkpointing, loss without logits. Needs a CUDA device; contributes no row
elsewhere.

MFU counts 6 floating-point operations a parameter and token (the recomputation of checkpointing is not counted as
useful work) against the dense bf16 peak of the device.
"""

import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.recipe_step import recipe_step_numbers  # noqa: E402
from tests.check.targets import Number, table  # noqa: E402

TOKENS, SAMPLE = 8192, 512
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, as NVIDIA's data sheets give it


def step_seconds(config, tokens: int, sample: int, device: str, steps: int = 5) -> tuple[float, int, list[float]]:
    """Median seconds of a step after two that warm up, parameters of the model, losses."""
    import torch

    from llm import load_language_model

    torch.manual_seed(0)
    with torch.device(device):
        model = load_language_model(config, dtype=torch.bfloat16).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    ids = torch.randint(0, config.vocab_size, (1, tokens), device=device)
    seq_idx = (torch.arange(tokens, device=device) // sample)[None]
    seconds, losses = [], []
    for _ in range(steps + 2):
        started = time.perf_counter()
        loss = model(ids, seq_idx=seq_idx, labels=ids, skip_logits=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())  # waits for the device
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:]), sum(p.numel() for p in model.parameters()), losses


def step_numbers(out: Path) -> list[Number]:
    """Rows of the device there is; none on a CPU."""
    import torch

    if not torch.cuda.is_available():
        return []
    from llm.presets import LLM_PRESETS

    name = torch.cuda.get_device_name()
    seconds, parameters, losses = step_seconds(LLM_PRESETS["Nemotron-H-4B"].config(), TOKENS, SAMPLE, "cuda")
    assert losses[-1] < losses[0], f"training on one row does not lower its loss: {losses}"
    command = f"Nemotron-H-4B, {TOKENS} packed tokens, bf16, {name}"
    rows = [
        Number("training step of a 4.5B hybrid: tokens a second", "", TOKENS / seconds, command),
        Number("training step of a 4.5B hybrid: peak GB", "", torch.cuda.max_memory_allocated() / 2**30, command),
    ]
    peak = next((flops for device, flops in PEAKS.items() if device in name), None)
    if peak is not None:
        mfu = 6 * parameters * TOKENS / seconds / peak
        rows.append(Number("training step of a 4.5B hybrid: MFU", "", mfu, command))
    return rows + recipe_step_numbers(out)


if __name__ == "__main__":
    print(table(step_numbers(Path(sys.argv[1]))) or "needs a CUDA device")
