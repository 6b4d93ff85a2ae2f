"""Linear transforms that give the channels of RADIO's features equal variance, and how such a transform is fitted.

PHI-S (arXiv 2410.01680): rotate onto the principal axes, mix those by a Hadamard matrix so that every channel carries
the mean variance, and divide by its root. `FeatureNormalizer` holds one for the final features,
`IntermediateNormalizer` one for the output of every block. Both compute in float32 and answer in the input's dtype.
"""

import math

import torch
from torch import nn


def _affine(x: torch.Tensor, mean: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """`(x - mean) @ matrix.T` in float32, also under autocast: the mean is many times the spread in some channels."""
    with torch.autocast(x.device.type, enabled=False):
        return ((x.float() - mean.float()) @ matrix.float().T).to(x.dtype)


class FeatureNormalizer(nn.Module):
    """`(..., D) -> (..., D)`: `(x - mean) @ tx.T`. Fresh, it is the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("tx", torch.eye(dim))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return _affine(features, self.mean, self.tx)


class IntermediateNormalizer(nn.Module):
    """For the output of every block: a mean, a scale (alpha), and a rotation, one for all or one a block.

    Only patches are transformed; cls and register tokens pass with alpha 1. The scale is returned rather than applied,
    because aggregation over blocks may average it before or after. Fresh, it is the identity.
    """

    def __init__(self, num_layers: int, dim: int, rot_per_layer: bool = False) -> None:
        super().__init__()
        self.register_buffer("alphas", torch.ones(num_layers))
        self.register_buffer("means", torch.zeros(num_layers, dim))
        rotation = torch.eye(dim)
        self.register_buffer("rotation", rotation.repeat(num_layers, 1, 1) if rot_per_layer else rotation)

    def normalize(
        self, x: torch.Tensor, layer: int, rotation_of: int, prefix: int | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The output of block `layer`, centred by its own mean and rotated by the rotation of block `rotation_of`.

        Args:
            x: `(B, T, D)`, prefix tokens and patches.
            layer: block that gave `x`; negative counts from the end, as for `rotation_of`.
            rotation_of: blocks that are averaged share a rotation, that of the last of them.
            prefix: how many tokens at the start are no patches; or a boolean mask `(T,)`, true where a token is a
                patch, for pictures packed into one sequence.

        Returns:
            `y` `(B, T, D)` and `alpha` `(1, T, 1)`, both in the dtype of `x`; `alpha * y` is the normalized output.
        """
        layers, tokens = len(self.alphas), x.shape[1]
        for index in (layer, rotation_of):
            if not -layers <= index < layers:
                raise ValueError(f"block {index}: the intermediate normalizer has {layers} blocks")
        if isinstance(prefix, torch.Tensor):
            if prefix.dtype != torch.bool or prefix.shape != (tokens,):
                raise ValueError(
                    f"the patch mask is {prefix.dtype} {tuple(prefix.shape)}: a boolean ({tokens},) is needed"
                )
            is_patch = prefix.to(x.device)[None, :, None]
        elif 0 <= prefix <= tokens:
            is_patch = (torch.arange(tokens, device=x.device) >= prefix)[None, :, None]
        else:
            raise ValueError(f"{prefix} prefix tokens in a sequence of {tokens}")
        rotation = self.rotation[rotation_of] if self.rotation.ndim == 3 else self.rotation
        y = torch.where(is_patch, _affine(x, self.means[layer], rotation), x)
        alpha = torch.where(is_patch, self.alphas[layer].to(x.dtype), torch.ones((), dtype=x.dtype, device=x.device))
        return y, alpha


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _construction(order: int) -> str | None:
    """Which classical construction gives a Hadamard matrix of this order without a product; None: none here.

    Paley's exist for prime powers; primes are enough for every width in use.
    """
    if order in (1, 2):
        return "base"
    if order % 4 == 0 and _is_prime(order - 1):  # order - 1 = 3 mod 4
        return "paley I"
    if order % 4 == 0 and (order // 2 - 1) % 4 == 1 and _is_prime(order // 2 - 1):
        return "paley II"
    return None


def _factors(order: int) -> list[int] | None:
    """Orders with a construction of their own whose product is `order`, as many twos as possible; None: no such."""
    for doublings in range(order.bit_length(), -1, -1):  # the smallest core that works
        if order % 2**doublings == 0 and _construction(order >> doublings):
            return [2] * doublings + [core for core in (order >> doublings,) if core > 1]
    for factor in range(12, math.isqrt(order) + 1, 4):  # two cores, such as 12 * 20
        if order % factor == 0 and _construction(factor) and (rest := _factors(order // factor)):
            return [factor, *rest]
    return None


def _paley(order: int) -> torch.Tensor:
    """Paley's matrices of quadratic residues modulo a prime q: type I of order q + 1, type II of order 2 (q + 1)."""
    first = _construction(order) == "paley I"
    q = order - 1 if first else order // 2 - 1
    symbol = -torch.ones(q, dtype=torch.float64)
    symbol[torch.arange(1, q) ** 2 % q] = 1
    symbol[0] = 0
    residues = symbol[(torch.arange(q)[:, None] - torch.arange(q)[None, :]) % q]
    core = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    core[0, 1:] = 1
    core[1:, 0] = -1 if first else 1
    core[1:, 1:] = residues
    eye = torch.eye(q + 1, dtype=torch.float64)
    if first:  # core is skew
        return core + eye
    plus_minus = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64)
    return torch.kron(core, plus_minus) + torch.kron(eye, torch.tensor([[1, -1], [-1, -1]], dtype=torch.float64))


def hadamard(order: int) -> torch.Tensor:
    """Orthonormal Hadamard matrix `(order, order)`, float64, every entry +-1/sqrt(order).

    Kronecker products of Sylvester's 2 x 2 and Paley's matrices. ValueError for an order that they do not give, with
    the nearest that they do; orders that are no multiple of 4 have none (but 1 and 2).
    """
    factors = _factors(order) if order > 0 else None
    if factors is None:
        below = next((n for n in range(order - 1, 0, -1) if _factors(n) is not None), None)
        above = next(n for n in range(max(order, 0) + 1, 2 * max(order, 1) + 1) if _factors(n) is not None)
        nearest = " and ".join(str(n) for n in (below, above) if n is not None)
        raise ValueError(f"no Hadamard matrix of order {order} is constructed here; the nearest usable are {nearest}")
    result = torch.ones(1, 1, dtype=torch.float64)
    for factor in factors:
        block = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64) if factor == 2 else _paley(factor)
        result = torch.kron(result, block)
    return result / math.sqrt(order)


def fit_phi_s(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit PHI-S to features `(N, D)`: float32 `mean` `(D,)` and `tx` `(D, D)` of a `FeatureNormalizer`.

    After it every channel has variance 1. ValueError for fewer than two rows, values that are not finite, features
    that do not vary, and widths without a Hadamard matrix.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"PHI-S is fitted to features (N, D) with N > 1, not {tuple(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError("the features to fit PHI-S to hold NaN or infinite values")
    mixing = hadamard(features.shape[1]).to(features.device)
    features = features.double()
    mean = features.mean(0)
    eigenvalues, axes = torch.linalg.eigh(torch.cov(features.T))
    variance = eigenvalues.clamp(min=0).mean()  # rounding leaves small negative ones
    if variance <= torch.finfo(torch.float64).eps * mean.square().mean():
        raise ValueError("the features to fit PHI-S to do not vary")
    tx = mixing @ axes.T / variance.sqrt()
    return mean.float(), tx.float()
