"""Floating-point operations of a model, and the peaks of devices: what a utilisation is counted from.

A multiply and an add are two operations. Counted are matrix products, attention (the whole square of each sample, as
in PaLM, arXiv 2204.02311, appendix B) and the state space scan; norms, activations and what gradient checkpointing
computes again are not. So the utilisation (MFU) of a step is `step / seconds / peak`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

# Dense bf16 peaks in 1e12 operations a second, as the makers' data sheets give them. The first name that a device's
# own name contains counts, so longer names stand first.
DEVICE_TFLOPS: dict[str, float] = {
    "GB200": 2500, "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H20": 148,
    "GH200": 989, "A100": 312, "A10G": 70, "A10": 125, "L40S": 362, "L4": 121, "RTX 4090": 165, "RTX 3090": 71,
    "RTX A6000": 155, "MI300X": 1307, "MI250X": 383,
}  # fmt: skip
READS_PATCHES = ("input_proj", "k_proj", "v_proj")  # layers of a projector with queries that see every patch
PICTURE = 1024  # patches of a picture where nobody says: 512 x 512 pixels


def device_tflops(name: str) -> float | None:
    """Peak of the device that calls itself `name` (`torch.cuda.get_device_name()`), or None."""
    ordered = sorted(DEVICE_TFLOPS, key=len, reverse=True)
    return next((DEVICE_TFLOPS[known] for known in ordered if known.lower() in name.lower()), None)


@dataclass(frozen=True)
class _Load:
    """A matrix product of every token: operations a token, and whether its weight trains."""

    tower: str
    what: str  # "patch" (one row a patch), "row" (also prefix tokens), "image" (one a projected token), "token", "head"
    flops: int
    trains: bool


class ModelFlops:
    """Counts for one model whose `requires_grad` flags are set; reading it once makes every count cheap."""

    def __init__(self, model: nn.Module) -> None:
        self.loads: list[_Load] = []
        # operations a squared length; of a projector with queries: a query and patch
        self.attention: dict[str, int] = {"vision": 0, "projector": 0, "text": 0}
        self.scan = 0  # operations a token
        vision, language = getattr(model, "vision_model", None), getattr(model, "language_model", model)
        self.prefix = 0 if vision is None else vision.config.num_cls_tokens + vision.config.num_registers
        self.shrink, self.queries = (0.0, 0) if vision is None else _tokens_of_a_picture(model.config)
        head = model.get_output_embeddings()
        head_ids = {id(module) for module in head.modules()} if head is not None else set()
        for name, module in model.named_modules():
            tower = _tower(name) if vision is not None else "text"
            if isinstance(module, nn.Linear):
                what = {"vision": "row", "projector": "image", "text": "token"}[tower]
                what = "patch" if "patch_projection" in name else "head" if id(module) in head_ids else what
                if tower == "projector" and name.endswith(READS_PATCHES):
                    what = "feature"
                if "video_patch_projection" in name:
                    continue  # a patch goes through one of the two
                size = 2 * module.in_features * module.out_features
                self.loads.append(_Load(tower, what, size, _trains(module)))
            elif type(module).__name__.endswith("Experts"):
                self._add_experts(module, language.config)
            if isinstance(getattr(module, "q_proj", None), nn.Module):
                out = getattr(module.q_proj, "out_features", 0)
                self.attention[tower] += 4 * out
            if all(hasattr(module, key) for key in ("ssm_state_size", "n_groups", "chunk_size", "num_heads")):
                self.scan += _scan_flops(module)
        trains = {load.tower for load in self.loads if load.trains}
        trains |= {_tower(name) if vision is not None else "text" for name, p in model.named_parameters()
                   if p.requires_grad}  # fmt: skip
        # a gradient passes through a tower if something trains in it or before it
        self.passes = {
            "vision": "vision" in trains,
            "projector": bool(trains & {"vision", "projector"}),
            "text": bool(trains),
        }

    def _add_experts(self, module: nn.Module, config) -> None:
        active = getattr(config, "num_experts_per_tok", 1)
        for weight in module.parameters(recurse=False):
            if weight.ndim == 3:
                size = 2 * active * weight.shape[1] * weight.shape[2]
                self.loads.append(_Load("text", "token", size, weight.requires_grad))

    def forward(
        self,
        tokens: int,
        patches: int = 0,
        lengths: Sequence[int] | None = None,
        picture_lengths: Sequence[int] | None = None,
        predicted: int | None = None,
    ) -> float:
        """Of one forward pass; see `forward_flops`."""
        return sum(flops for _, flops, _, _ in self._items(tokens, patches, lengths, picture_lengths, predicted))

    def step(
        self,
        tokens: int,
        patches: int = 0,
        lengths: Sequence[int] | None = None,
        picture_lengths: Sequence[int] | None = None,
        predicted: int | None = None,
    ) -> float:
        """Of forward and backward; see `step_flops`."""
        total = 0.0
        for tower, flops, inputs, trains in self._items(tokens, patches, lengths, picture_lengths, predicted):
            total += flops * (1 + self.passes[tower] * inputs + trains)
        return total

    def _items(self, tokens, patches, lengths, picture_lengths, predicted):
        """(tower, operations, factors that are activations and get a gradient, whether the weight trains)."""
        if picture_lengths is None:
            whole, rest = divmod(patches, PICTURE)
            picture_lengths = [PICTURE] * whole + [rest] * (rest > 0)
        lengths = [tokens] if lengths is None else lengths
        rows = {
            "patch": patches,
            "row": patches + self.prefix * len(picture_lengths),
            "feature": patches,
            "image": patches * self.shrink + self.queries * len(picture_lengths),
            "token": tokens,
            "head": tokens if predicted is None else predicted,
        }
        for load in self.loads:
            yield load.tower, load.flops * rows[load.what], int(load.what != "patch"), load.trains
        pictures = sum((length + self.prefix) ** 2 for length in picture_lengths)
        yield "vision", self.attention["vision"] * pictures, 2, False
        yield "projector", self.attention["projector"] * self.queries * patches, 2, False
        yield "text", self.attention["text"] * sum(length**2 for length in lengths), 2, False
        yield "text", self.scan * tokens, 2, False


def forward_flops(
    model: nn.Module,
    tokens: int,
    patches: int = 0,
    lengths: Sequence[int] | None = None,
    picture_lengths: Sequence[int] | None = None,
    predicted: int | None = None,
) -> float:
    """Operations of one forward pass of a VLM or a causal language model, on any device (the meta device included).

    Args:
        tokens: positions of the language model, image tokens included. patches: of all pictures, every view counted.
        lengths: of the packed samples or rows, for attention; default: one of `tokens`.
        picture_lengths: patches of each picture the encoder sees; default: pictures of 1024.
        predicted: positions that go through the head; default: all.
    """
    return ModelFlops(model).forward(tokens, patches, lengths, picture_lengths, predicted)


def step_flops(
    model: nn.Module,
    tokens: int,
    patches: int = 0,
    lengths: Sequence[int] | None = None,
    picture_lengths: Sequence[int] | None = None,
    predicted: int | None = None,
) -> float:
    """Operations of forward and backward by the model's `requires_grad`: 3 x forward where weights train, 2 x where
    only a gradient passes, 1 x for a frozen encoder in front. Arguments as in `forward_flops`."""
    return ModelFlops(model).step(tokens, patches, lengths, picture_lengths, predicted)


def _tower(name: str) -> str:
    first = name.split(".")[0]
    return {"vision_model": "vision", "multi_modal_projector": "projector"}.get(first, "text")


def _trains(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.requires_grad


def _tokens_of_a_picture(config) -> tuple[float, int]:
    """(tokens a patch, tokens besides): one of them is 0, as a projector folds patches or has so many queries."""
    from projectors.components import num_tokens

    side = 48  # any fold of 2, 3 or 4 divides it
    whole, quarter = (num_tokens(config.projector_config, one, one) for one in (side, side // 2))
    return (0.0, whole) if whole == quarter else (whole / side**2, 0)


def _scan_flops(mixer: nn.Module) -> int:
    """Of a Mamba-2 mixer a token: scores and outputs inside a chunk, states in and out (arXiv 2405.21060, section 6),
    and the short convolution."""
    inner, groups = mixer.num_heads * mixer.head_dim, mixer.n_groups
    inside = 2 * mixer.chunk_size * (groups * mixer.ssm_state_size + inner)
    return inside + 4 * inner * mixer.ssm_state_size + 2 * mixer.conv_kernel_size * mixer.conv_dim
