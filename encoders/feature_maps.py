"""Feature maps one can look at: the first three principal components of patch features as red, green and blue.

A basis fitted once may colour any number of maps (the frames of a video, pictures to compare): equal colours then mean
equal features. The same features give the same colours in every run: nothing is drawn anew, and signs are fixed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

EXACT_UP_TO = 2048  # channels; wider features (a 4096-wide teacher head) are decomposed without their D x D covariance
TAIL = 0.01  # share of patches at either end of a component that may saturate
_ROWS = 4096  # patches turned to float64 at a time: bounds memory whatever the size of the map
_EXTRA = 9  # directions iterated beside the three wanted ones; they carry the convergence


@dataclass(frozen=True)
class FeatureBasis:
    """What turns features into colours.

    Attributes:
        mean: `(D,)` float64.
        components: `(3, D)` float64, orthonormal rows by falling variance; the largest entry of each is positive. A
            direction in which nothing varies is zero.
        low, high: `(3,)` the scores that become 0 and 255.
        explained: `(3,)` share of the variance of the fitted features that each component holds.
    """

    mean: torch.Tensor
    components: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    explained: torch.Tensor

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """`(..., D, h, w)` -> scores `(..., h, w, 3)` float64."""
        if features.shape[-3] != len(self.mean):
            raise ValueError(f"the basis is for features of width {len(self.mean)}, not {features.shape[-3]}")
        scores = torch.cat([block @ self.components.T for block in _centred([features], self.mean)])
        return scores.view(*features.shape[:-3], *features.shape[-2:], 3)

    def colours(self, features: torch.Tensor) -> torch.Tensor:
        """`(..., D, h, w)` -> uint8 `(..., h, w, 3)`. A component without variance is mid-grey."""
        spread = self.high - self.low
        unit = (self.project(features) - self.low) / torch.where(spread > 0, spread, 1.0)
        unit = torch.where(spread > 0, unit, 0.5).clamp(0, 1)
        return (unit * 255).round().to(torch.uint8)


def fit_basis(maps: Sequence[torch.Tensor], what: str = "features") -> FeatureBasis:
    """The basis of all patches of `maps`, each `(..., D, h, w)`; heights and widths may differ.

    Raises:
        ValueError: no maps, maps of different widths, values that are not finite (naming `what`).
    """
    widths = {features.shape[-3] for features in maps}
    if len(widths) != 1:
        raise ValueError(f"a basis needs {what} of one width, not {sorted(widths) or 'none at all'}")
    for features in maps:
        check_finite(features, what)
    rows = sum(features.numel() // features.shape[-3] for features in maps)
    zero = torch.zeros(widths.pop(), dtype=torch.float64, device=maps[0].device)
    mean = sum((block.sum(0) for block in _centred(maps, zero)), zero) / rows
    variances, components = (_by_covariance if len(mean) <= EXACT_UP_TO else _by_iteration)(maps, mean)

    total = sum((block.square().sum() for block in _centred(maps, mean)), mean.new_zeros(())) or mean.new_ones(())
    explained = (variances.clamp(min=0) / total).clamp(max=1)
    size = components.gather(1, components.abs().argmax(1, keepdim=True))
    components = components * torch.where(size < 0, -1.0, 1.0)
    components = torch.where((explained > 1e-10)[:, None], components, 0.0)
    scores = torch.cat([block @ components.T for block in _centred(maps, mean)]).sort(dim=0).values
    cut = min(round(TAIL * rows), (rows - 1) // 2)
    return FeatureBasis(mean, components, scores[cut], scores[rows - 1 - cut], explained)


def align_signs(
    basis: FeatureBasis,
    maps: Sequence[torch.Tensor],
    reference: FeatureBasis,
    reference_maps: Sequence[torch.Tensor],
) -> FeatureBasis:
    """`basis` with those components turned round whose scores run against the same component of `reference`.

    For two kinds of features of the same pictures (two blocks, a block and a teacher head; widths and grids may
    differ): without it equal structure may come out in complementary colours.
    """
    agreement = torch.zeros_like(basis.low)
    for features, other in zip(maps, reference_maps, strict=True):
        wanted = reference.project(other).movedim(-1, -3)
        scores = basis.project(features).movedim(-1, -3)
        pooled = F.adaptive_avg_pool2d(scores, wanted.shape[-2:])
        agreement += (pooled * wanted).movedim(-3, 0).flatten(1).sum(1)
    against = agreement < 0
    return replace(
        basis,
        components=torch.where(against[:, None], -basis.components, basis.components),
        low=torch.where(against, -basis.high, basis.low),
        high=torch.where(against, -basis.low, basis.high),
    )


def check_finite(features: torch.Tensor, what: str = "features") -> None:
    """Raises:
    ValueError: some values are NaN or infinite; says how many.
    """
    bad = features.numel() - int(torch.isfinite(features).sum())
    if bad:
        raise ValueError(f"{what}: {bad:,} of {features.numel():,} values are NaN or infinite")


class RunningStats:
    """Mean and standard deviation over all values of the tensors added, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, values: torch.Tensor) -> None:
        for part in values.flatten().split(_ROWS * 1024):
            part = part.double()
            self.count += part.numel()
            self.total += float(part.sum())
            self.squares += float(part.square().sum())

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def std(self) -> float:
        return max(self.squares / self.count - self.mean**2, 0.0) ** 0.5


def _centred(maps: Sequence[torch.Tensor], mean: torch.Tensor) -> Iterator[torch.Tensor]:
    """Blocks `(<= _ROWS, D)` of the patches of all maps in float64, less the mean."""
    for features in maps:
        for block in features.movedim(-3, -1).reshape(-1, features.shape[-3]).split(_ROWS):
            yield block.double() - mean


def _by_covariance(maps: Sequence[torch.Tensor], mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(sums of squares `(3,)`, directions `(3, D)`) by the eigenvectors of the D x D covariance."""
    width = len(mean)
    covariance = mean.new_zeros(width, width)
    for block in _centred(maps, mean):
        covariance.addmm_(block.T, block)
    return _three_largest(*torch.linalg.eigh(covariance))


def _by_iteration(
    maps: Sequence[torch.Tensor], mean: torch.Tensor, most: int = 60, tolerance: float = 1e-9
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by orthogonal iteration: a few thin products with the data instead of the D x D covariance.

    Ends when the three variances no longer change (relative to the largest), or after `most` rounds: what is left then
    is a mixture of components of nearly equal variance, which no picture tells apart.
    """
    width = len(mean)
    start = torch.randn(width, 3 + _EXTRA, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = torch.linalg.qr(start.to(mean.device)).Q
    before = mean.new_zeros(3)
    for _ in range(most):
        image = torch.zeros_like(directions)
        for block in _centred(maps, mean):
            image.addmm_(block.T, block @ directions)
        values, rotation = torch.linalg.eigh(directions.T @ image)
        largest = values.flip(0)[:3]
        if (largest - before).abs().max() <= tolerance * largest[0].abs():
            break
        before, directions = largest, torch.linalg.qr(image).Q
    return _three_largest(values, directions @ rotation)


def _three_largest(values: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From ascending eigenvalues and their columns; features narrower than three get zero directions."""
    missing = max(0, 3 - len(values))
    values, vectors = values.flip(0)[:3], vectors.flip(1)[:, :3].T
    values = torch.cat([values, values.new_zeros(missing)])
    return values, torch.cat([vectors, vectors.new_zeros(missing, vectors.shape[1])])
