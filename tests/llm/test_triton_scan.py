"""mamba-ssm's own Triton scan inside our mixers against our PyTorch scan: packed samples, logits, loss and gradients.

On a GPU the kernels run as they are; without one in Triton's interpreter, which needs no compiler and no device. In a
process of its own: the interpreter is chosen when Triton is imported.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import contextlib, json, sys, types
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":  # what the launchers ask of a device
    torch.cuda.device = lambda index: contextlib.nullcontext()
    torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(multi_processor_count=8)

import llm
import llm.mamba2_mixer as mixer
from llm.kernels import find_kernel

kernel = find_kernel("mamba_chunk_scan")
assert kernel.function is not None, kernel.state
calls = []

def fused(*args, **kwargs):
    calls.append(kwargs["seq_idx"] is not None)
    return kernel.function(*args, **kwargs)

def leaking(*args, **kwargs):
    return kernel.function(*args, **{**kwargs, "seq_idx": None})

torch.manual_seed(0)
model = llm.load_language_model(llm.families()[sys.argv[1]].tiny()).to(device).eval()
ids = torch.randint(3, 96, (1, 100), device=device)
seq_idx = (torch.arange(100, device=device) >= 33).long()[None]
positions = torch.cat([torch.arange(33), torch.arange(67)])[None].to(device)

def run(scan):
    mixer.kernel = lambda name, device: scan if name == "mamba_chunk_scan" else None
    model.zero_grad()
    out = model(input_ids=ids, seq_idx=seq_idx, position_ids=positions, labels=ids, use_cache=False)
    out.loss.backward()
    return out.logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

ours, theirs, control = run(None), run(fused), run(leaking)
grads = max(((ours[1][n] - theirs[1][n]).norm() / ours[1][n].norm().clamp(min=1e-9)).item() for n in ours[1])
print(json.dumps({
    "calls": len(calls), "packed": all(calls), "logits": (ours[0] - theirs[0]).abs().max().item(), "gradients": grads,
    "control": (ours[0] - control[0]).abs().max().item(),
}))
"""


@pytest.mark.parametrize("family", ["nemotron_h", "falcon_h1", "mamba2"])
def test_the_kernel_computes_what_ours_does(family):
    for package in ("mamba_ssm", "triton"):
        if find_spec(package) is None:
            pytest.skip(f"optional package absent: {package}")
    env = {**os.environ, "MAMBA_DETERMINISTIC": "1"}  # one configuration a kernel: nothing is tuned first
    if not torch.cuda.is_available():
        env["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, family], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["calls"] == 2 and found["packed"], "the kernel ran in both Mamba layers, with the samples' numbers"
    exact = not torch.cuda.is_available()  # on a GPU the kernels multiply in TF32
    assert found["logits"] < (1e-5 if exact else 2e-2)
    assert found["gradients"] < (1e-4 if exact else 5e-2)
    assert found["control"] > (1e-3 if exact else 0), "without the samples' numbers the first one's state goes on"
