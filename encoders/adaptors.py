"""Teacher heads: from a RADIO backbone's tokens to the feature spaces of the models it was distilled from.

An adaptor has two heads, one for the teacher's summary token and one for its patch features; the latter may raise the
resolution. Checkpoints hold three kinds of heads, `"v1"`, `"v2"` and (features only) `"attn"`; `config.adaptors` says
which, see `encoders.adaptor_specs`. Names of weights are the public ones, but for the attention blocks, which are
native `RadioLayer`s.

Wider than the reference implementation, which stops with an exception in each of these cases: a v1 head for features,
an attention head with upsampling or with NCHW output.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.radio.configuration_radio import RadioConfig
from transformers.models.radio.modeling_radio import RadioLayer

Grid = tuple[int, int]


class AdaptorOutput(NamedTuple):
    """In the teacher's space, float32: `summary` `(B, S)`; `features` `(B, h*u*w*u, C)`, as NCHW `(B, C, h*u, w*u)`,
    or packed `(sum of h*u*w*u, C)`, where u is the adaptor's `upsample_factor`."""

    summary: torch.Tensor
    features: torch.Tensor


class Adaptors(dict):
    """`AdaptorOutput` by teacher; a name may be cut where the checkpoint's goes on with - or _ ("dino_v3")."""

    def __missing__(self, name: str) -> AdaptorOutput:
        longer = [own for own in self if own.startswith((f"{name}-", f"{name}_"))]
        if len(longer) != 1:
            raise KeyError(f"{name!r}; there are {', '.join(self) or 'no adaptors'}")
        return self[longer[0]]


class HeadV1(nn.Module):
    """Linear, LayerNorm, ReLU, then `num_inner` times the same, then Linear: `(..., input_dim)` to `output_dim`."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_inner: int = 0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        inner: list[nn.Module] = []
        for _ in range(num_inner):
            inner += [nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim), nn.ReLU()]
        self.inner = nn.Sequential(*inner)
        self.fc2 = nn.Linear(hidden_dim, output_dim)

    @property
    def dtype(self) -> torch.dtype:
        return self.fc1.weight.dtype

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.inner(F.relu(self.norm(self.fc1(tokens)))))


def norm_gelu(dim: int, *then: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.GELU(), *then)


class HeadV2(nn.Module):
    """Linear, `num_inner` pre-norm residual layers, LayerNorm, GELU, Linear: `(..., input_dim)` to `output_dim`."""

    def __init__(
        self, input_dim: int, hidden_dim: int, output_dim: int, num_inner: int = 0, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.pre_norm = norm_gelu(input_dim) if pre_norm else nn.Identity()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.blocks = nn.ModuleList(norm_gelu(hidden_dim, nn.Linear(hidden_dim, hidden_dim)) for _ in range(num_inner))
        self.final = norm_gelu(hidden_dim, nn.Linear(hidden_dim, output_dim))

    @property
    def dtype(self) -> torch.dtype:
        return self.fc1.weight.dtype

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.fc1(self.pre_norm(tokens))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.final(hidden)


class AttentionHead(nn.Module):
    """Transformer blocks over the patches of one picture, prefix tokens left out, then a v2 head.

    The blocks are native `RadioLayer`s: no bias in q, k and v, LayerScale, MLP of four times the width, eps 1e-6.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_inner: int = 0,
        pre_norm: bool = False,
        num_blocks: int = 2,
        num_heads: int = 16,
        attn_implementation: str = "sdpa",
    ) -> None:
        super().__init__()
        if input_dim % num_heads:
            raise ValueError(f"an attention head of width {input_dim} cannot have {num_heads} heads: not a multiple")
        config = RadioConfig(
            hidden_size=input_dim,
            num_hidden_layers=num_blocks,
            num_attention_heads=num_heads,
            qkv_bias=False,
            mlp_ratio=4.0,
            layer_norm_eps=1e-6,
        )
        config._attn_implementation = attn_implementation
        self.blocks = nn.ModuleList(RadioLayer(config) for _ in range(num_blocks))
        self.mlp = HeadV2(input_dim, hidden_dim, output_dim, num_inner, pre_norm)

    @property
    def dtype(self) -> torch.dtype:
        return self.mlp.dtype

    def forward(self, tokens: torch.Tensor, cu_seqlens: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, L, input_dim)` to `(B, L, output_dim)`. With `cu_seqlens` `(N + 1,)`, int32: B is 1 and the pictures lie
        end to end; each attends to itself only."""
        for block in self.blocks:
            tokens = block(tokens, cu_seqlens=cu_seqlens)
        return self.mlp(tokens)

    def forward_packed(self, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """`(sum of lengths, input_dim)` to `(sum of lengths, output_dim)`, attention within each picture."""
        if len(set(lengths)) == 1:  # equal pictures are one dense batch, which needs no varlen kernel
            return self(tokens.view(len(lengths), lengths[0], -1)).flatten(0, 1)
        ends = torch.tensor(lengths, device=tokens.device).cumsum(0)
        return self(tokens.unsqueeze(0), F.pad(ends, (1, 0)).to(torch.int32))[0]


HEADS = {"v1": HeadV1, "v2": HeadV2, "attn": AttentionHead}


def build_head(spec: dict, attn_implementation: str = "sdpa") -> nn.Module:
    """The head that one half of an adaptor's spec describes; ValueError for a version without a class."""
    version = spec.get("version")
    if version not in HEADS:
        raise ValueError(f"teacher head of version {version!r}: the known ones are {', '.join(HEADS)}")
    names = ["input_dim", "hidden_dim", "output_dim", "num_inner"]
    if version == "v1":
        if spec.get("pre_norm"):
            raise ValueError("a teacher head of version 'v1' has no `pre_norm`; it is an option of 'v2'")
    else:
        names.append("pre_norm")
    options = {name: spec[name] for name in names if name in spec}
    if version == "attn":
        options.update({name: spec[name] for name in ("num_blocks", "num_heads") if name in spec})
        options["attn_implementation"] = attn_implementation
    return HEADS[version](**options)


def shuffle_patches(tokens: torch.Tensor, grid: Grid, factor: int) -> torch.Tensor:
    """Every patch becomes factor x factor patches: `(B, h*w, factor*factor*C)`, channels in the order (row within the
    patch, column within it, C), to `(B, h*factor*w*factor, C)` in raster order."""
    (h, w), batch = grid, tokens.shape[0]
    tokens = tokens.view(batch, h, w, factor, factor, -1)
    return tokens.transpose(2, 3).reshape(batch, h * factor * w * factor, -1)


class TeacherAdaptor(nn.Module):
    """One teacher's two heads. Each runs in the dtype of its own parameters and answers in float32.

    Args:
        spec: `{"head_idx", "summary": {...}, "feature": {...}}`, see `encoders.adaptor_specs`. `output_dim` of the
            feature head is what its last layer gives, `upsample_factor ** 2` times the channels of the features.
        attn_implementation: of attention heads, a name that transformers knows.

    Attributes: `head_idx`, which prefix token the summary head reads; `upsample_factor`; `summary_dim`, `feature_dim`.
    """

    def __init__(self, spec: dict, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.head_idx = int(spec.get("head_idx", 0))
        self.upsample_factor = int(spec["feature"].get("upsample_factor") or 1)
        self.summary_dim = spec["summary"]["output_dim"]
        self.feature_dim, rest = divmod(spec["feature"]["output_dim"], self.upsample_factor**2)
        if rest:
            raise ValueError(
                f"a feature head of {spec['feature']['output_dim']} outputs cannot be upsampled by "
                f"{self.upsample_factor}: not a multiple of {self.upsample_factor**2}"
            )
        if spec["summary"].get("version") == "attn":
            raise ValueError("an attention head reads patches; the version of a summary head is 'v1' or 'v2'")
        self.head_mlp = build_head(spec["summary"])
        self.feat_mlp = build_head(spec["feature"], attn_implementation)

    def forward(
        self, summary: torch.Tensor, features: torch.Tensor, grid: Grid, feature_fmt: str = "NLC"
    ) -> AdaptorOutput:
        """Pictures of one grid.

        Args:
            summary: the prefix token `head_idx` after the last block, `(B, D)`.
            features: patch features after the feature normalizer, `(B, h*w, D)`.
            grid: `(h, w)` in patches.
            feature_fmt: "NLC" or "NCHW", layout of the features returned.
        """
        (h, w), factor = grid, self.upsample_factor
        if features.ndim != 3 or features.shape[1] != h * w:
            raise ValueError(f"features {tuple(features.shape)} are not (B, {h * w}, D), the patches of a {h}x{w} grid")
        if feature_fmt not in ("NLC", "NCHW"):
            raise ValueError(f"feature_fmt={feature_fmt!r}: 'NLC' or 'NCHW'")
        projected = self.feat_mlp(features.to(self.feat_mlp.dtype)).float()
        if factor > 1:
            projected = shuffle_patches(projected, grid, factor)
        if feature_fmt == "NCHW":
            projected = projected.transpose(1, 2).unflatten(2, (h * factor, w * factor))
        return AdaptorOutput(self._summary(summary), projected)

    def forward_packed(self, summary: torch.Tensor, features: torch.Tensor, grids: list[Grid]) -> AdaptorOutput:
        """Pictures of any grids, laid end to end: `summary` `(N, D)`, `features` `(total, D)`. Equal to `forward` on
        one picture after the other; upsampled features lie end to end in the same order."""
        lengths = [h * w for h, w in grids]
        if features.ndim != 2 or len(features) != sum(lengths) or len(summary) != len(grids):
            raise ValueError(
                f"features {tuple(features.shape)} and summary {tuple(summary.shape)} do not fit {len(grids)} pictures "
                f"of {sum(lengths)} patches"
            )
        tokens = features.to(self.feat_mlp.dtype)
        if isinstance(self.feat_mlp, AttentionHead):
            projected = self.feat_mlp.forward_packed(tokens, lengths).float()
        else:
            projected = self.feat_mlp(tokens).float()
        if self.upsample_factor > 1:
            pieces = zip(projected.split(lengths), grids)
            projected = torch.cat([shuffle_patches(p[None], grid, self.upsample_factor)[0] for p, grid in pieces])
        return AdaptorOutput(self._summary(summary), projected)

    def _summary(self, token: torch.Tensor) -> torch.Tensor:
        return self.head_mlp(token.to(self.head_mlp.dtype)).float()


def build_adaptors(config) -> nn.ModuleDict:
    """The adaptors of `config.adaptors` by name, freshly initialised; empty where there are none.

    Raises ValueError where a spec does not fit the backbone: its width, or the number of its prefix tokens.
    """
    attn_implementation = config._attn_implementation or "sdpa"
    adaptors = nn.ModuleDict()
    for name, spec in (config.adaptors or {}).items():
        for half in ("summary", "feature"):
            if half not in spec:
                raise ValueError(f"adaptor {name!r} has no {half!r} head in `config.adaptors`; it needs both")
            if spec[half]["input_dim"] != config.hidden_size:
                raise ValueError(
                    f"the {half} head of adaptor {name!r} reads tokens of width {spec[half]['input_dim']}, the "
                    f"backbone's `hidden_size` is {config.hidden_size}"
                )
        if not 0 <= spec.get("head_idx", 0) < config.num_summary_tokens:
            raise ValueError(
                f"adaptor {name!r} reads prefix token {spec['head_idx']}, the backbone has "
                f"{config.num_summary_tokens} (cls and registers)"
            )
        adaptors[name] = TeacherAdaptor(spec, attn_implementation)
    return adaptors
