"""Plain weights from reparametrised ones: spectral norms are folded in, DAMP's empty level is taken off.

RADIO is trained with weights `W * s / (sigma(W) + eps)`, where `sigma` is the largest singular value as estimated by
power iteration, `u.T W v`, and `s` a learned scale. Files of torch.hub may keep W, u, v and the scale. Fused matrices
(`qkv`, `w12`) are normalised in equal parts, of which some may be plain.

Folding here uses the stored u and v, as the model in evaluation does. torch.hub folds in training mode, one more power
iteration: `iterations=1` gives its numbers. The two differ only as far as the iteration had not converged.
"""

import re
from collections.abc import Mapping

import torch
from torch.nn import functional as F

from encoders.errors import RadioCheckpointError
from encoders.tensor_files import MemoryTensors, Rows, TensorReader

LEVEL = re.compile(r"^(?P<module>.*?)\.?parametrizations\.(?P<weight>\w+)\.(?P<rest>.+)$")
REST = re.compile(r"^\d+\.(?:parts\.(?P<part>\d+)\.)?(?P<field>scale|_u|_v|_sn_version)$")
WHOLE = -1  # part number of a weight that is normalised as one


def eps_of(argument: bool | Mapping | None) -> float:
    """The eps that `args.spectral_reparam` stands for."""
    return float(argument.get("eps", 1e-12)) if isinstance(argument, Mapping) else 1e-6


def fold_part(
    weight: torch.Tensor,
    scale: torch.Tensor,
    u: torch.Tensor | None,
    v: torch.Tensor | None,
    version: int,
    eps: float,
    iterations: int = 0,
) -> torch.Tensor:
    """`W * s / (sigma + eps)` of one normalised matrix, computed in float32 at least, in the dtype of `weight`.

    Args:
        weight: `(out, ...)`; a vector's sigma is its norm, and needs no u and v.
        scale: one number, of any shape; of a row of several the first counts.
        u, v: `(out,)`, `(in,)`.
        version: 2: `s = softplus(scale) + 0.05`; 1: `s = scale`.
        iterations: power iterations before sigma is taken.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    matrix = weight.to(wide).flatten(1) if weight.ndim > 1 else weight.to(wide)
    if weight.ndim == 1:
        sigma = torch.linalg.vector_norm(matrix)
    else:
        u, v = u.to(wide).flatten(), v.to(wide).flatten()
        for _ in range(iterations):
            u = F.normalize(torch.mv(matrix, v), dim=0, eps=eps)
            v = F.normalize(torch.mv(matrix.T, u), dim=0, eps=eps)
        sigma = torch.dot(u, torch.mv(matrix, v))
    factor = scale.to(wide).flatten()[0]
    if version == 2:
        factor = F.softplus(factor) + 0.05
    return (matrix * (factor / (sigma + eps))).view(weight.shape).to(weight.dtype)


class FoldedTensors(TensorReader):
    """Other tensors under plain names; a parametrised weight is folded when it is read.

    Args:
        tensors: any names; those with `.parametrizations.` in them are replaced by the weight they make.
        eps: see `eps_of`.
        iterations: power iterations before folding; 1 is what torch.hub does.

    Raises:
        RadioCheckpointError: a parametrisation that is not known, or not complete.
    """

    def __init__(self, tensors: TensorReader, eps: float = 1e-6, iterations: int = 0) -> None:
        self._tensors, self.eps, self.iterations = tensors, eps, iterations
        self._original: dict[str, str] = {}  # plain name -> name of the stored tensor
        self._fields: dict[str, dict[int, dict[str, str]]] = {}  # plain name -> part -> field -> stored name
        for name in tensors.keys():
            level = LEVEL.match(name)
            if level is None:
                plain = name
            else:
                plain = f"{level['module']}.{level['weight']}" if level["module"] else level["weight"]
                rest = REST.match(level["rest"])
                if rest:
                    part = WHOLE if rest["part"] is None else int(rest["part"])
                    self._fields.setdefault(plain, {}).setdefault(part, {})[rest["field"]] = name
                    continue
                if level["rest"] != "original":
                    raise RadioCheckpointError(f"'{name}' belongs to a parametrisation that is not known")
            if plain in self._original:
                raise RadioCheckpointError(f"'{self._original[plain]}' and '{name}' are the same weight")
            self._original[plain] = name
        for plain in self._fields:
            self._check(plain)

    @property
    def folded(self) -> list[str]:
        """Plain names of the weights that carry a spectral norm."""
        return list(self._fields)

    def _check(self, plain: str) -> None:
        """A parametrised weight has all it needs, in shapes that fit."""
        if plain not in self._original:
            raise RadioCheckpointError(f"'{plain}' has a spectral norm, but no '.original' weight")
        shape, parts = self.shape(plain), self._fields[plain]
        if WHOLE in parts and len(parts) > 1:
            raise RadioCheckpointError(f"'{plain}' has a spectral norm as one and one in parts")
        needed = ("scale",) if len(shape) == 1 else ("scale", "_u", "_v")
        for part, fields in parts.items():
            missing = [field for field in needed if field not in fields]
            if missing:
                raise RadioCheckpointError(f"the spectral norm of '{plain}' lacks {', '.join(missing)}")
            if part != WHOLE and len(shape) == 1:
                raise RadioCheckpointError(f"the vector '{plain}' has a spectral norm in parts")
            scale = self._tensors.shape(fields["scale"])
            if 0 in scale or any(size != 1 for size in scale[:-1]):
                raise RadioCheckpointError(f"the scale of '{plain}' has shape {list(scale)}, not [1, 1]")
        if len(shape) > 1:
            self._check_vectors(plain, shape)

    def _check_vectors(self, plain: str, shape: tuple[int, ...]) -> None:
        """u and v fit the rows and columns of each part."""
        rows = self._part_rows(plain)
        columns = 1
        for size in shape[1:]:
            columns *= size
        for part, fields in self._fields[plain].items():
            u, v = self._tensors.shape(fields["_u"]), self._tensors.shape(fields["_v"])
            if u != (rows,) or v != (columns,) or shape[0] % rows or part >= shape[0] // rows:
                where = "" if part == WHOLE else f" (part {part})"
                raise RadioCheckpointError(
                    f"the spectral norm of '{plain}'{where} is for {list(u)} x {list(v)}, its weight is {list(shape)}"
                )

    def _part_rows(self, plain: str) -> int:
        """Rows of one part: as long as the u of any part; all rows when the weight is normalised as one."""
        parts = self._fields[plain]
        if WHOLE in parts:
            return self.shape(plain)[0]
        return max(1, self._tensors.shape(next(iter(parts.values()))["_u"])[0])

    def keys(self) -> list[str]:
        return list(self._original)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors.shape(self._original[name])

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors.dtype(self._original[name])

    def read(self, name: str, rows: Rows | None = None) -> torch.Tensor:
        if name not in self._fields:
            return self._tensors.read(self._original[name], rows)
        start, stop = (0, self.shape(name)[0]) if rows is None else rows
        step = self._part_rows(name)
        pieces = []
        for first in range(start - start % step, stop, step):  # whole parts: sigma is theirs
            piece = self._fold(name, first // step, (first, first + step))
            pieces.append(piece[max(start - first, 0) : stop - first])
        return pieces[0].clone() if len(pieces) == 1 and len(pieces[0]) < step else torch.cat(pieces)

    def _fold(self, name: str, part: int, rows: Rows) -> torch.Tensor:
        """One part of a weight; parts without fields are plain."""
        parts = self._fields[name]
        weight = self._tensors.read(self._original[name], rows)
        fields = parts.get(WHOLE) or parts.get(part)
        if fields is None:
            return weight
        values = {field: self._tensors.read(stored) for field, stored in fields.items()}
        version = int(values["_sn_version"]) if "_sn_version" in values else 1
        if version not in (1, 2):
            raise RadioCheckpointError(f"the spectral norm of '{name}' has version {version}; 1 and 2 are known")
        return fold_part(
            weight, values["scale"], values.get("_u"), values.get("_v"), version, self.eps, self.iterations
        )


def fold(tensors: TensorReader | Mapping[str, torch.Tensor], eps: float = 1e-6, iterations: int = 0) -> FoldedTensors:
    """`FoldedTensors` of a reader or of a plain state dict."""
    reader = tensors if isinstance(tensors, TensorReader) else MemoryTensors(tensors)
    return FoldedTensors(reader, eps, iterations)
