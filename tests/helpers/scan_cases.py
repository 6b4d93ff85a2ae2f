"""Inputs of scans, and values with all gradients: what tests and numbers need to hold a scan against its twin."""

import torch


def ssd_inputs(batch=2, length=37, heads=4, width=8, groups=2, state=6, seed=0, dtype=torch.float32) -> dict:
    """Tensors that `llm.ssd_scan` takes, `initial_states` among them; what a network computes is of type `dtype`."""
    normal = _normal(seed)
    return {
        "x": normal(batch, length, heads, width).to(dtype),
        "dt": normal(batch, length, heads).to(dtype),
        "A": -normal(heads).exp(),
        "B": normal(batch, length, groups, state).to(dtype),
        "C": normal(batch, length, groups, state).to(dtype),
        "D": normal(heads),
        "dt_bias": normal(heads),
        "initial_states": normal(batch, heads, width, state),
    }


def selective_inputs(batch=2, length=37, width=8, state=5, seed=0, dtype=torch.float32) -> dict:
    """Tensors that `llm.selective_scan.selective_scan` takes."""
    normal = _normal(seed)
    return {
        "x": normal(batch, length, width).to(dtype),
        "dt": normal(batch, length, width).to(dtype),
        "A": -normal(width, state).exp(),
        "B": normal(batch, length, state).to(dtype),
        "C": normal(batch, length, state).to(dtype),
        "D": normal(width),
        "dt_bias": normal(width),
        "initial_states": normal(batch, width, state),
    }


def extreme(inputs: dict, low=-8.0, high=3.0, decay=1.0, seed=0) -> dict:
    """The same with steps spread evenly over 10^low ... 10^high (for dt_softplus=False) and A times `decay`."""
    generator = torch.Generator().manual_seed(seed)
    powers = torch.rand(inputs["dt"].shape, generator=generator) * (high - low) + low
    kept = {name: tensor for name, tensor in inputs.items() if name != "dt_bias"}
    return kept | {"dt": (10**powers).to(inputs["dt"].dtype), "A": inputs["A"] * decay}


def random_samples(batch: int, length: int, chance: float, seed=0) -> torch.Tensor:
    """(batch, length) sample numbers; a new sample begins at a position by `chance`."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, length, generator=generator) < chance).cumsum(1)


def run(scan, inputs: dict, exact: bool = False, **options) -> dict[str, torch.Tensor]:
    """Output, last state and the gradients of every input, from gradients that flow into both; all in fp32.

    `exact`: the same numbers, computed from fp32 inputs, to measure what rounding to bf16 costs.
    """
    leaves = {name: (t.float() if exact else t).clone().requires_grad_() for name, t in inputs.items()}
    y, last = scan(**leaves, **options)
    normal = _normal(99)
    g_y, g_last = normal(*y.shape).to(inputs["x"].dtype), normal(*last.shape)
    ((y.float() * g_y.to(y)).sum() + (last * g_last.to(last)).sum()).backward()
    grads = {f"gradient of {name}": leaf.grad.float() for name, leaf in leaves.items()}
    return {"y": y.detach().float(), "last state": last.detach().float()} | grads


def errors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, float]:
    """Norm of the difference over the norm of what is wanted, for every tensor; inf where anything is not finite."""
    assert found.keys() == wanted.keys()
    return {name: _error(found[name].cpu(), wanted[name].cpu()) for name in wanted}


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    if not (found.isfinite().all() and wanted.isfinite().all()):
        return float("inf")
    difference, size = (found.double() - wanted.double()).norm().item(), wanted.double().norm().item()
    return difference / size if size else difference


def _normal(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)
