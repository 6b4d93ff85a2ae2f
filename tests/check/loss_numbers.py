"""The numbers the loss without full logits promises, at a vocabulary of 131,072 and a width of 1024 in fp32: equal to
full logits, not slower, and small. Times are medians of rounds in which the rivals take turns, in one process; memory
is the peak of a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

INPUTS = """
import json, resource, statistics, sys, time
import torch
from llm.linear_cross_entropy import head_cross_entropy_sum, linear_cross_entropy, linear_cross_entropy_full
from llm.turn_weights import sqrt_turn_weights

torch.set_num_threads(2)
torch.manual_seed(0)
tokens = int(sys.argv[1])
hidden = torch.empty(tokens, 1024).normal_().requires_grad_()
weight = torch.empty(131072, 1024).normal_(std=0.02).requires_grad_()
labels = torch.randint(0, 131072, (tokens,))
labels[::100] = -100  # turns of 99 tokens
turns = sqrt_turn_weights(labels, shifted=True)
"""

SPEED = (
    INPUTS
    + """
def head_loop():
    return head_cross_entropy_sum(lambda x: x @ weight.T, hidden, labels, turns) / turns.sum()

rivals = {
    "full logits": lambda: linear_cross_entropy_full(hidden, weight, labels),
    "unweighted": lambda: linear_cross_entropy(hidden, weight, labels),
    "weighted": lambda: linear_cross_entropy(hidden, weight, labels, turns),
    "checkpointed head loop": head_loop,
}
wall, cpu, results = ({name: [] for name in rivals} for _ in range(3))
for _ in range(3):
    for name, loss in rivals.items():
        hidden.grad = weight.grad = None
        start, spent = time.perf_counter(), time.process_time()
        value = loss()
        value.backward()
        wall[name].append(time.perf_counter() - start)
        cpu[name].append(time.process_time() - spent)
        results[name] = (value.detach(), hidden.grad, weight.grad)
hidden.grad = weight.grad = None
linear_cross_entropy_full(hidden, weight, labels, turns).backward()
with torch.no_grad():
    weighted = (linear_cross_entropy_full(hidden, weight, labels, turns), hidden.grad, weight.grad)

def error(found, wanted):  # the largest of loss and gradients, each relative to the largest number of the full one
    return max(((f - w).abs().max() / w.abs().max()).item() for f, w in zip(found, wanted))

def ratios(spent):
    return {name: statistics.median(found) / statistics.median(spent["full logits"]) for name, found in spent.items()}

errors = {
    "unweighted": error(results["unweighted"], results["full logits"]),
    "weighted": error(results["weighted"], weighted),
    "checkpointed head loop": error(results["checkpointed head loop"], weighted),
}
control = error(weighted, results["full logits"])
print(json.dumps({"wall": ratios(wall), "cpu": ratios(cpu), "errors": errors, "control": control}))
"""
)

MEMORY = (
    INPUTS
    + """
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024

arguments = {"plain": (), "chunks": (turns,)}[sys.argv[2]]
small = torch.randn(50, 1024, requires_grad=True)
linear_cross_entropy(hidden[:64], small, labels[:64] % 50, *(x[:64] for x in arguments)).backward()  # what is made once
hidden.grad = None
before = resident()
linear_cross_entropy(hidden, weight, labels, *arguments).backward()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
gradients = 4 * (hidden.grad.numel() + weight.grad.numel())
print(json.dumps({"extra": (peak - before - gradients) / 1e9}))
"""
)


def measure(script: str, *words: object) -> dict:
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def speed(tokens: int) -> list[Number]:
    found = measure(SPEED, tokens)
    rows, size = [], f"{tokens:,} tokens"
    for name, bound in (("unweighted", 1.15), ("weighted", 1.7), ("checkpointed head loop", 1.7)):
        rows.append(Number(f"loss, {name}: error against full logits", "<= 1e-5", found["errors"][name], size))
        rows.append(Number(f"loss, {name}: time / full logits", f"<= {bound}", found["wall"][name], size))
        rows.append(Number(f"loss, {name}: CPU seconds / full logits", "", found["cpu"][name], size))
    rows.append(Number("loss, weighted minus unweighted (control)", ">= 1e-3", found["control"], size))
    return rows


def memory(tokens: int) -> list[Number]:
    """Beyond inputs and gradients; full logits would be 8.6 GB."""
    rows = []
    for kind, name in (("plain", "unweighted"), ("chunks", "weighted")):
        extra = measure(MEMORY, tokens, kind)["extra"]
        rows.append(Number(f"loss, {name}: extra GB of {tokens:,} tokens", "<= 0.75", extra, "full: 8.6"))
    return rows


def loss_numbers(out: Path) -> list[Number]:
    out.mkdir(parents=True, exist_ok=True)
    return [*speed(2048), *memory(16384)]


if __name__ == "__main__":
    print(table(loss_numbers(Path(sys.argv[1]))))
