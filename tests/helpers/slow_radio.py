"""RADIO written slowly: a second implementation, from the functional spec alone, to compare `encoders` with.

It runs on the PUBLIC names of the weights (`radio_model.model.blocks.0.attn.qkv.weight` ...), so a wrong renaming, a
dropped weight or a transposed axis anywhere in the loader shows as a wrong number. One sample, one head, one window at
a time. It agrees with the recorded outputs of the reference to 2e-5 (tests/encoders/test_slow_twin.py).
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

Weights = dict[str, torch.Tensor]


@dataclass
class PublicRadio:
    """A checkpoint under its remote-code names, with what its `args` say."""

    weights: Weights
    args: dict
    patch_size: int
    num_heads: int
    upsample: dict[str, int] = field(default_factory=dict)  # adaptor -> factor of its features

    @property
    def dino(self) -> bool:
        return any(name.startswith("radio_model.model.inner.") for name in self.weights)

    @property
    def trunk(self) -> str:
        return "radio_model.model.inner." if self.dino else "radio_model.model."

    @property
    def depth(self) -> int:
        return len({name.split("blocks.")[1].split(".")[0] for name in self.weights if f"{self.trunk}blocks." in name})


@dataclass
class SlowOutput:
    summary: torch.Tensor  # (B, S * D)
    features: torch.Tensor  # (B, L, D)
    adaptors: dict[str, tuple[torch.Tensor, torch.Tensor]]  # name -> (summary, features (B, L', C))
    grid: tuple[int, int]


def linear(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    y = x @ w[f"{name}.weight"].float().T
    return y + w[f"{name}.bias"].float() if f"{name}.bias" in w else y


def layer_norm(x: torch.Tensor, w: Weights, name: str, eps: float) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * w[f"{name}.weight"].float() + w[f"{name}.bias"].float()


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


# ---- embeddings ----------------------------------------------------------------------------------------------------


def patches_of(picture: torch.Tensor, p: int) -> torch.Tensor:
    """`(C, H, W)` -> `(L, C * P * P)`, row-major patches, values in (c, y, x) order."""
    _, height, width = picture.shape
    rows = []
    for y in range(0, height, p):
        for x in range(0, width, p):
            rows.append(picture[:, y : y + p, x : x + p].reshape(-1))
    return torch.stack(rows)


def bilinear(table: torch.Tensor, m: int) -> torch.Tensor:
    """`(R, R, D)` -> `(m, m, D)`: half-pixel centres, no antialias, edges repeated; one output row at a time."""
    size = table.shape[0]

    def corners(i: int) -> tuple[int, int, float]:
        at = max((i + 0.5) * size / m - 0.5, 0.0)
        low = min(int(at), size - 1)
        return low, min(low + 1, size - 1), at - low

    out = torch.empty(m, m, table.shape[2])
    for y in range(m):
        y0, y1, fy = corners(y)
        row = table[y0] * (1 - fy) + table[y1] * fy
        for x in range(m):
            x0, x1, fx = corners(x)
            out[y, x] = row[x0] * (1 - fx) + row[x1] * fx
    return out


def positions(model: PublicRadio, rows: int, cols: int) -> torch.Tensor:
    """Evaluation: the whole table as a square of the longer side, then its top-left `rows` x `cols`. `(L, D)`."""
    table = model.weights[f"{model.trunk}patch_generator.pos_embed"].float()[0]
    side = math.ceil(round(model.args["cpe_max_size"] / model.patch_size) * model.patch_size / model.patch_size)
    assert table.shape[0] == side * side
    square = table.view(side, side, -1)
    if (rows, cols) != (side, side):
        square = bilinear(square, max(rows, cols))
    return square[:rows, :cols].reshape(rows * cols, -1)


def embed(model: PublicRadio, pixels: torch.Tensor, conditioned: bool = False) -> torch.Tensor:
    """`(B, C, H, W)` -> `(B, prefix + L, D)`. More channels than the conditioner has: temporally packed video."""
    w, trunk = model.weights, model.trunk
    mean, std = (w[f"radio_model.input_conditioner.norm_{name}"].float() for name in ("mean", "std"))
    frames = pixels.shape[1] // 3
    if not conditioned:
        pixels = (pixels - mean.repeat(frames, 1, 1)) / std.repeat(frames, 1, 1)
    projection = "video_embedder" if frames > 1 else "embedder"
    rows, cols = pixels.shape[-2] // model.patch_size, pixels.shape[-1] // model.patch_size
    prefix = w[f"{trunk}patch_generator.cls_token.token"].float()
    sequences = []
    for picture in pixels:
        tokens = linear(patches_of(picture, model.patch_size), w, f"{trunk}patch_generator.{projection}")
        sequences.append(torch.cat([prefix, tokens + positions(model, rows, cols)]))
    x = torch.stack(sequences)
    normalizer = f"{trunk}patch_generator.patch_normalizer"
    return layer_norm(x, w, normalizer, 1e-5) if f"{normalizer}.weight" in w else x


# ---- blocks --------------------------------------------------------------------------------------------------------


def attention(x: torch.Tensor, w: Weights, name: str, num_heads: int) -> torch.Tensor:
    """`(T, D)` -> `(T, D)`, head by head."""
    width = x.shape[-1]
    size = width // num_heads
    q, k, v = linear(x, w, f"{name}.qkv").split(width, dim=-1)
    heads = []
    for h in range(num_heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[:, part] @ k[:, part].T / math.sqrt(size)
        heads.append(scores.softmax(-1) @ v[:, part])
    return linear(torch.cat(heads, dim=-1), w, f"{name}.proj")


def layer_scale(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    for spelling in ("grandma", "gamma"):
        if f"{name}.{spelling}" in w:
            return x * w[f"{name}.{spelling}"].float()
    return x


def mlp(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    if f"{name}.w12.weight" in w:
        gate, up = linear(x, w, f"{name}.w12").chunk(2, dim=-1)
        return linear(gate * torch.sigmoid(gate) * up, w, f"{name}.w3")
    return linear(gelu(linear(x, w, f"{name}.fc1")), w, f"{name}.fc2")


def block(x: torch.Tensor, w: Weights, name: str, num_heads: int) -> torch.Tensor:
    """One pre-norm block on one sequence `(T, D)`."""
    mixed = attention(layer_norm(x, w, f"{name}.norm1", 1e-6), w, f"{name}.attn", num_heads)
    x = x + layer_scale(mixed, w, f"{name}.ls1")
    return x + layer_scale(mlp(layer_norm(x, w, f"{name}.norm2", 1e-6), w, f"{name}.mlp"), w, f"{name}.ls2")


def global_blocks(depth: int, num_global: int | None = None, num_windowed: int | None = None) -> list[int]:
    """Blocks that see the whole picture: the switches of the spec, walked one by one."""
    period = num_windowed + 1 if num_windowed is not None else max(depth // (num_global or 4), 1)
    assert period >= 2
    windowed, answer = False, []
    for i in range(depth):
        if i < depth - 1 and i % period == 0:
            windowed = True
        if i % period == period - 1 or i == depth - 1:
            windowed = False
        if not windowed:
            answer.append(i)
    return answer


def windowed_block(x: torch.Tensor, w: Weights, name: str, heads: int, prefix: int, grid, window: int) -> torch.Tensor:
    """Every `window` x `window` square of patches is a sequence of its own; the prefix tokens stay as they are."""
    rows, cols = grid
    out = x.clone()
    for top in range(0, rows, window):
        for left in range(0, cols, window):
            inside = [prefix + y * cols + x0 for y in range(top, top + window) for x0 in range(left, left + window)]
            out[inside] = block(x[inside], w, name, heads)
    return out


def run_blocks(model: PublicRadio, x: torch.Tensor, grid, window=None, num_global=None, num_windowed=None):
    """Every block's output `(B, prefix + L, D)`, raster order, no norm."""
    w, prefix = model.weights, prefix_size(model)
    everywhere = global_blocks(model.depth, num_global, num_windowed) if window else range(model.depth)
    states = []
    for i in range(model.depth):
        name = f"{model.trunk}blocks.{i}"
        if i in everywhere:
            x = torch.stack([block(one, w, name, model.num_heads) for one in x])
        else:
            x = torch.stack([windowed_block(one, w, name, model.num_heads, prefix, grid, window) for one in x])
        states.append(x)
    return states


def prefix_size(model: PublicRadio) -> int:
    return model.weights[f"{model.trunk}patch_generator.cls_token.token"].shape[0]


def final_norm(model: PublicRadio, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(x, model.weights, f"{model.trunk}norm", 1e-6) if model.dino or model.args["model_norm"] else x


# ---- what comes out ------------------------------------------------------------------------------------------------


def summary_idxs(model: PublicRadio, form: str) -> list[int]:
    """The stored buffer where there is one; else the rule of the torch.hub code or that of the remote code."""
    teachers = model.args["teachers"]
    if form == "hub":
        if not model.args["cls_token_per_teacher"]:
            return [0]
        used = [(t["name"], i) for i, t in enumerate(teachers) if t.get("use_summary", True)]
        return sorted(dict(reversed(used)).values())  # of a name listed again, the first of those that are used
    if "radio_model.summary_idxs" in model.weights:
        return model.weights["radio_model.summary_idxs"].tolist()
    return [i for i, teacher in enumerate(teachers) if teacher.get("use_summary", True)]


def summary_of(model: PublicRadio, tokens: torch.Tensor, form: str) -> torch.Tensor:
    if model.dino:
        return tokens[:, 0]
    return torch.cat([tokens[:, i] for i in summary_idxs(model, form)], dim=-1)


def head_idx(model: PublicRadio, name: str) -> int:
    if not model.args["cls_token_per_teacher"] or model.dino:
        return 0
    index = [teacher["name"] for teacher in model.args["teachers"]].index(name)
    slot = model.args["teachers"][index].get("token_slot")
    return index if slot is None else slot


def feature_normalizer(model: PublicRadio, x: torch.Tensor) -> torch.Tensor:
    w = model.weights
    if "radio_model.feature_normalizer.mean" not in w:
        return x
    return (x - w["radio_model.feature_normalizer.mean"]) @ w["radio_model.feature_normalizer.tx"].T


def mlp_v1(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    x = F.relu(layer_norm(linear(x, w, f"{name}.fc1"), w, f"{name}.norm", 1e-5))
    at = 0
    while f"{name}.inner.{at}.weight" in w:  # Linear, LayerNorm, ReLU
        x = F.relu(layer_norm(linear(x, w, f"{name}.inner.{at}"), w, f"{name}.inner.{at + 1}", 1e-5))
        at += 3
    return linear(x, w, f"{name}.fc2")


def mlp_v2(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    if f"{name}.pre_norm.0.weight" in w:
        x = gelu(layer_norm(x, w, f"{name}.pre_norm.0", 1e-5))
    x = linear(x, w, f"{name}.fc1")
    at = 0
    while f"{name}.blocks.{at}.0.weight" in w:
        x = x + linear(gelu(layer_norm(x, w, f"{name}.blocks.{at}.0", 1e-5)), w, f"{name}.blocks.{at}.2")
        at += 1
    return linear(gelu(layer_norm(x, w, f"{name}.final.0", 1e-5)), w, f"{name}.final.2")


def head(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    """`(T, D)` -> `(T, C)`; which kind of head it is shows in its names."""
    if f"{name}.mlp.fc1.weight" in w:
        at = 0
        while f"{name}.blocks.{at}.norm1.weight" in w:
            x = block(x, w, f"{name}.blocks.{at}", 16)
            at += 1
        return mlp_v2(x, w, f"{name}.mlp")
    return mlp_v1(x, w, name) if f"{name}.norm.weight" in w else mlp_v2(x, w, name)


def shuffled_up(x: torch.Tensor, grid, u: int) -> torch.Tensor:
    """`(h * w, u * u * c)` -> `(h * u * w * u, c)`: the channels of a patch are (row in it, column in it, c)."""
    rows, cols = grid
    c = x.shape[-1] // (u * u)
    out = torch.empty(rows * u, cols * u, c)
    for y in range(rows):
        for x0 in range(cols):
            for u1 in range(u):
                for u2 in range(u):
                    start = (u1 * u + u2) * c
                    out[y * u + u1, x0 * u + u2] = x[y * cols + x0, start : start + c]
    return out.reshape(-1, c)


def adaptors(model: PublicRadio, tokens: torch.Tensor, features: torch.Tensor, grid) -> dict:
    """Summary heads read the raw prefix token of their teacher, feature heads the normalised features."""
    w, answer = model.weights, {}
    names = {name.split(".")[2] for name in w if name.startswith("radio_model.adaptors.")}
    for name in sorted(names):
        start = f"radio_model.adaptors.{name}"
        summary = head(tokens[:, head_idx(model, name)], w, f"{start}.head_mlp")
        mapped = [head(one, w, f"{start}.feat_mlp") for one in features]
        u = model.upsample.get(name, 1)
        answer[name] = (summary, torch.stack([shuffled_up(one, grid, u) if u > 1 else one for one in mapped]))
    return answer


def finish(model: PublicRadio, tokens: torch.Tensor, grid, form: str) -> SlowOutput:
    features = feature_normalizer(model, tokens[:, prefix_size(model) :])
    return SlowOutput(summary_of(model, tokens, form), features, adaptors(model, tokens, features, grid), grid)


@torch.no_grad()
def slow_radio(model: PublicRadio, pixels: torch.Tensor, form: str = "remote", **windows) -> SlowOutput:
    """`form`: whose rule picks the summary tokens. `windows`: `window`, `num_global`, `num_windowed`."""
    grid = pixels.shape[-2] // model.patch_size, pixels.shape[-1] // model.patch_size
    tokens = final_norm(model, run_blocks(model, embed(model, pixels), grid, **windows)[-1])
    return finish(model, tokens, grid, form)


def intermediate_normalizer(model: PublicRadio, x: torch.Tensor, layer: int, rotation_of: int):
    """`(y, alpha)`: patches centred by their layer's mean and turned by the rotation of `rotation_of`."""
    w, start, prefix = model.weights, "radio_model.inter_feature_normalizer", prefix_size(model)
    if f"{start}.alphas" not in w:
        return x, 1.0
    rotation = w[f"{start}.rotation"]
    rotation = rotation[rotation_of] if rotation.ndim == 3 else rotation
    patches = (x[:, prefix:] - w[f"{start}.means"][layer]) @ rotation.T
    return torch.cat([x[:, :prefix], patches], dim=1), w[f"{start}.alphas"][layer].item()


@torch.no_grad()
def slow_intermediates(
    model: PublicRadio,
    pixels: torch.Tensor,
    indices: int | list[int],
    norm: bool = False,
    stop_early: bool = False,
    aggregation: str = "sparse",
    norm_alpha_scheme: str = "post-alpha",
    form: str = "remote",
    **windows,
) -> tuple[SlowOutput, list[tuple[torch.Tensor, torch.Tensor]]]:
    """The final output and, for every taken block, `(summary (B, S * D), features (B, L, D))`."""
    grid = pixels.shape[-2] // model.patch_size, pixels.shape[-1] // model.patch_size
    prefix, depth = prefix_size(model), model.depth
    states = run_blocks(model, embed(model, pixels), grid, **windows)
    wanted = range(depth - indices, depth) if isinstance(indices, int) else indices
    taken = sorted({index % depth for index in wanted})
    answer, first = [], 0
    for last in taken:
        group = range(first, last + 1) if aggregation == "dense" else [last]
        first = last + 1
        parts, alphas = [], []
        for i in group:
            y, alpha = states[i], 1.0
            if norm_alpha_scheme != "none":
                y, alpha = intermediate_normalizer(model, states[i], i, last)
            if norm_alpha_scheme == "pre-alpha":
                y = torch.cat([y[:, :prefix], y[:, prefix:] * alpha], dim=1)
            parts.append(y)
            alphas.append(alpha)
        out = sum(parts) / len(parts)
        if norm_alpha_scheme == "post-alpha":
            out = torch.cat([out[:, :prefix], out[:, prefix:] * (sum(alphas) / len(alphas))], dim=1)
        out = final_norm(model, out) if norm else out
        answer.append((summary_of(model, out, form), out[:, prefix:]))
    end = states[taken[-1]] if stop_early else states[-1]
    return finish(model, final_norm(model, end) if norm else end, grid, form), answer
