"""What the scans of Mamba-1 and Mamba-2 do with their inputs before they start: shapes checked, step sizes made."""

import torch
import torch.nn.functional as F


def check_shapes(wanted: dict[str, tuple[torch.Tensor | None, tuple[int, ...]]], beside: str) -> None:
    """Raises ValueError for a given tensor that has not its shape; ``beside`` names what the shapes follow from."""
    for name, (given, shape) in wanted.items():
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} is of shape {tuple(given.shape)}: {beside} it is {shape}")


def prepare_step(
    dt: torch.Tensor,
    dt_bias: torch.Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
) -> torch.Tensor:
    """Step sizes in fp32: bias, softplus and clamp, in the order of the published kernels."""
    dt = dt.float()
    if dt_bias is not None:
        dt = dt + dt_bias.float()
    if dt_softplus:
        dt = F.softplus(dt)
    low, high = dt_limit
    if low > 0.0 or high != float("inf"):
        dt = dt.clamp(min=low, max=high)
    return dt
