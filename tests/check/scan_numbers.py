"""The numbers the scans promise: equal to the recurrence, faster and smaller than what transformers falls back on.

Rivals take turns in one process of two threads, and the medians are compared; peak memory is that of a fresh process,
above the level before the timed region.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

# argv: family of the scan, "time" and rounds, or "memory" and one rival
RIVALS = """
import json, statistics, sys, time
import torch
from tests.helpers.scan_cases import selective_inputs, ssd_inputs

torch.set_num_threads(2)

def mamba2():
    from transformers.models.nemotron_h.modeling_nemotron_h import mamba2_chunk_scan
    from llm.ssd_scan import ssd_scan

    theirs = mamba2_chunk_scan.__wrapped__  # the PyTorch function below the choice of a kernel
    options = {"chunk_size": 128, "dt_softplus": True}
    return 4096, lambda length: ssd_inputs(1, length, 32, 64, 8, 128), {
        "ours": lambda **given: ssd_scan(**given, **options)[0],
        "transformers": lambda x, **given: theirs(x, **given, **options),
    }

def mamba1():
    from transformers.models.jamba.modeling_jamba import mamba_selective_scan
    from llm.selective_scan import selective_scan

    def theirs(x, dt, A, B, C, D, dt_bias):
        x, dt, B, C = (t.transpose(1, 2) for t in (x, dt, B, C))
        return mamba_selective_scan.__wrapped__(x, dt, A, B, C, D, None, dt_bias, True).transpose(1, 2)

    return 256, lambda length: selective_inputs(1, length, 1024, 16), {
        "ours": lambda **given: selective_scan(**given, dt_softplus=True)[0],
        "transformers": theirs,
    }

def prepare(length):  # steps as Mamba initialises them, around 0.01; no initial state, which not all rivals take
    given = {name: tensor for name, tensor in inputs(length).items() if name != "initial_states"}
    given["dt_bias"] -= 4.6
    return {name: tensor.requires_grad_() for name, tensor in given.items()}

def run(scan, given):
    start = time.perf_counter()
    scan(**given).sum().backward()
    return time.perf_counter() - start

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

length, inputs, rivals = {"mamba2": mamba2, "mamba1": mamba1}[sys.argv[1]]()
if sys.argv[2] == "time":
    given, times = prepare(length), {name: [] for name in rivals}
    for _ in range(int(sys.argv[3]) + 1):
        for name, scan in rivals.items():
            times[name].append(run(scan, given))
            for tensor in given.values():
                tensor.grad = None
    print(json.dumps({name: statistics.median(found[1:]) for name, found in times.items()}))
else:
    run(rivals[sys.argv[3]], prepare(length // 16))
    given = prepare(length)
    open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts here
    before = peak()
    run(rivals[sys.argv[3]], given)
    print(json.dumps(peak() - before))
"""

# Nemotron-H-4B, 8k packed tokens, on a GPU with mamba-ssm
GPU = """
import json
import torch, triton
from llm.kernels import kernel
from llm.ssd_scan import ssd_scan
from tests.helpers.scan_cases import ssd_inputs

theirs = kernel("mamba_chunk_scan", torch.device("cuda"))
if theirs is None:
    print(json.dumps(None))
    raise SystemExit
given = ssd_inputs(1, 8192, 112, 64, 8, 128, dtype=torch.bfloat16)
given = {name: tensor.cuda().requires_grad_() for name, tensor in given.items() if name != "initial_states"}
g = torch.randn_like(given["x"])
compiled = torch.compile(ssd_scan, fullgraph=True)
seq_idx = (torch.arange(8192, device="cuda") // 700).int().unsqueeze(0)
options = {"dt_softplus": True, "seq_idx": seq_idx}

def time(scan, chunk_size):
    def step():
        out = scan(**given, chunk_size=chunk_size, **options)
        (out if isinstance(out, torch.Tensor) else out[0]).backward(g)
        for tensor in given.values():
            tensor.grad = None
    return triton.testing.do_bench(step, warmup=200, rep=500, return_mode="median")

print(json.dumps({
    "triton": time(theirs, 128), "compiled": time(compiled, 128), "eager": time(ssd_scan, 128),
    "device": torch.cuda.get_device_name(),
}))
"""


def measure(script: str, *words: object):
    words = [sys.executable, "-W", "ignore", "-c", script, *map(str, words)]
    run = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def twin_numbers() -> list[Number]:
    """Largest error over output, last state and every gradient: random samples, usual and extreme steps."""
    import torch

    from llm.selective_scan import selective_scan, selective_scan_sequential
    from llm.ssd_scan import ssd_scan, ssd_scan_sequential
    from tests.helpers import scan_cases as cases

    scans = {
        "Mamba-2": (ssd_scan, ssd_scan_sequential, cases.ssd_inputs, {"chunk_size": 64}),
        "Mamba-1": (selective_scan, selective_scan_sequential, cases.selective_inputs, {}),
    }
    rows = []
    for name, (scan, twin, inputs_of, options) in scans.items():
        for dtype, bound in ((torch.float32, "<= 1e-4"), (torch.bfloat16, "<= 2e-2")):
            worst = {"usual": 0.0, "extreme": 0.0}
            for seed in range(6):
                length = (1, 40, 64, 150, 257, 300)[seed]
                inputs = inputs_of(length=length, seed=seed, dtype=dtype)
                seq_idx = cases.random_samples(2, length, (0.0, 0.02, 0.3)[seed % 3], seed)
                for steps in worst:
                    given, more = (inputs, {"dt_softplus": True}) if steps == "usual" else (cases.extreme(inputs), {})
                    more = more | options | {"seq_idx": seq_idx}
                    wanted = cases.run(twin, given, exact=True, **more)
                    worst[steps] = max(worst[steps], *cases.errors(cases.run(scan, given, **more), wanted).values())
            kind = str(dtype).removeprefix("torch.")
            for steps, title in (("usual", ""), ("extreme", ", steps 1e-8 ... 1e3")):
                title = f"{name} scan minus recurrence, values and gradients, {kind}{title}"
                rows.append(Number(title, bound, worst[steps], scan.__name__))
    return rows


def rival_numbers() -> list[Number]:
    """Forward and backward against the PyTorch fallbacks of transformers."""
    mamba2, mamba1 = measure(RIVALS, "mamba2", "time", 5), measure(RIVALS, "mamba1", "time", 3)
    peaks = {
        family: {name: measure(RIVALS, family, "memory", name) for name in ("ours", "transformers")}
        for family in ("mamba2", "mamba1")
    }
    shapes = {"mamba2": "B1 L4096 H32 P64 G8 N128 chunk 128", "mamba1": "B1 L256 D1024 N16"}
    command = {family: f"forward + backward, fp32, {shape}, 2 threads" for family, shape in shapes.items()}
    ratio = {family: peak["ours"] / peak["transformers"] for family, peak in peaks.items()}
    return [
        Number("Mamba-2 scan: seconds", "", mamba2["ours"], command["mamba2"]),
        Number("Mamba-2 scan: transformers' seconds / ours", ">= 1.5", speedup(mamba2), command["mamba2"]),
        Number("Mamba-2 scan: peak memory / transformers'", "<= 0.5", ratio["mamba2"], command["mamba2"]),
        Number("Mamba-1 scan: seconds", "", mamba1["ours"], command["mamba1"]),
        Number("Mamba-1 scan: transformers' seconds / ours", ">= 1.5", speedup(mamba1), command["mamba1"]),
        Number("Mamba-1 scan: peak memory / transformers'", "<= 0.5", ratio["mamba1"], command["mamba1"]),
    ]


def speedup(seconds: dict[str, float]) -> float:
    return seconds["transformers"] / seconds["ours"]


def gpu_numbers() -> list[Number]:
    """Our compiled scan against mamba-ssm's Triton kernels; no rows without a GPU or without the kernels."""
    import torch

    found = measure(GPU) if torch.cuda.is_available() else None
    if found is None:
        return []
    command = f"forward + backward, bf16, B1 L8192 H112 P64 G8 N128 chunk 128, packed, {found['device']}"
    return [
        Number("Mamba-2 scan: milliseconds of Triton kernels", "", found["triton"], command),
        Number("Mamba-2 scan compiled: time / Triton kernels'", "", found["compiled"] / found["triton"], command),
        Number("Mamba-2 scan eager: time / Triton kernels'", "", found["eager"] / found["triton"], command),
    ]


def scan_numbers(out: Path) -> list[Number]:
    return [*twin_numbers(), *rival_numbers(), *gpu_numbers()]


if __name__ == "__main__":
    print(table(scan_numbers(Path(sys.argv[1]))))
