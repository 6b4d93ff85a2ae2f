"""Random RADIO checkpoints of any shape, written to disk in the public forms, for the comparison with `slow_radio`."""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.helpers.radio_fixtures import hub_names
from tests.helpers.slow_radio import PublicRadio, Weights

MEAN, STD = (0.48145467, 0.4578275, 0.40821072), (0.2686295, 0.2613026, 0.2757771)
TEACHERS = ({"name": "siglip2-g"}, {"name": "dino_v3_7b"}, {"name": "sam3", "use_summary": False})


class Draw:
    """Random weights by name; matrices keep the scale of their input, everything else is far from its default."""

    def __init__(self, seed: int, start: str) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.weights: Weights = {}
        self.start = start

    def normal(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def put(self, name: str, value: torch.Tensor) -> None:
        self.weights[f"{self.start}{name}"] = value

    def linear(self, name: str, n_in: int, n_out: int, bias: bool = True) -> None:
        self.put(f"{name}.weight", self.normal(n_out, n_in, scale=1 / math.sqrt(n_in)))
        if bias:
            self.put(f"{name}.bias", self.normal(n_out, scale=0.2))

    def norm(self, name: str, width: int) -> None:
        self.put(f"{name}.weight", 1 + self.normal(width, scale=0.2))
        self.put(f"{name}.bias", self.normal(width, scale=0.2))

    def block(self, name: str, width: int, hidden: int, qkv_bias=True, scale: str | None = None, swiglu=False) -> None:
        self.norm(f"{name}.norm1", width)
        self.linear(f"{name}.attn.qkv", width, 3 * width, qkv_bias)
        self.linear(f"{name}.attn.proj", width, width)
        self.norm(f"{name}.norm2", width)
        if swiglu:
            self.linear(f"{name}.mlp.w12", width, 2 * hidden)
            self.linear(f"{name}.mlp.w3", hidden, width)
        else:
            self.linear(f"{name}.mlp.fc1", width, hidden)
            self.linear(f"{name}.mlp.fc2", hidden, width)
        for which in ("ls1", "ls2") if scale else ():
            self.put(f"{name}.{which}.{scale}", self.normal(width))

    def mlp_v1(self, name: str, width: int, hidden: int, out: int, inner: int) -> None:
        self.linear(f"{name}.fc1", width, hidden)
        self.norm(f"{name}.norm", hidden)
        for k in range(0, 3 * inner, 3):
            self.linear(f"{name}.inner.{k}", hidden, hidden)
            self.norm(f"{name}.inner.{k + 1}", hidden)
        self.linear(f"{name}.fc2", hidden, out)

    def mlp_v2(self, name: str, width: int, hidden: int, out: int, inner: int, pre_norm: bool = False) -> None:
        if pre_norm:
            self.norm(f"{name}.pre_norm.0", width)
        self.linear(f"{name}.fc1", width, hidden)
        for k in range(inner):
            self.norm(f"{name}.blocks.{k}.0", hidden)
            self.linear(f"{name}.blocks.{k}.2", hidden, hidden)
        self.norm(f"{name}.final.0", hidden)
        self.linear(f"{name}.final.2", hidden, out)

    def head(self, name: str, version: str, width: int, out: int, inner: int, pre_norm: bool) -> None:
        if version == "attn":
            for k in range(2):
                self.block(f"{name}.blocks.{k}", width, 4 * width, qkv_bias=False, scale="gamma")
            self.mlp_v2(f"{name}.mlp", width, 20, out, inner, pre_norm)
        elif version == "v1":
            self.mlp_v1(name, width, 20, out, inner)
        else:
            self.mlp_v2(name, width, 20, out, inner, pre_norm)


def random_radio(
    seed: int = 0,
    width: int = 32,
    depth: int = 3,
    num_heads: int = 4,
    hidden: int | None = None,
    patch_size: int = 8,
    cpe_max_size: int = 64,
    teachers: tuple[dict, ...] = TEACHERS,
    cls_token_per_teacher: bool = True,
    register_multiple: int | None = 8,
    cpe_num_registers: int | None = None,
    qkv_bias: bool = True,
    scale: str | None = None,  # "grandma" | "gamma": layer scale under that name
    model_norm: bool = False,
    dino: bool = False,
    patch_normalizer: bool = False,
    video: int | None = None,  # frames in a tubelet
    adaptors: dict[str, dict] | None = None,  # name -> {summary, feature: "v1"|"v2"|"attn", up, inner, pre_norm}
    normalizer: bool = False,
    inter_normalizer: str | None = None,  # "shared" | "per_layer"
    dtype: torch.dtype = torch.float32,
    store_summary: bool = True,
    **more_args,
) -> PublicRadio:
    """A checkpoint with random weights under the remote-code names; `dtype` is that of the trunk's weights."""
    hidden = hidden or 4 * width
    names = {teacher["name"] for teacher in teachers}
    num_cls = len(names) if cls_token_per_teacher else 1
    if cpe_num_registers:
        registers = cpe_num_registers
    else:
        registers = register_multiple - num_cls % register_multiple if register_multiple else 0
    side = round(cpe_max_size / patch_size)
    trunk = Draw(seed, "radio_model.model.inner." if dino else "radio_model.model.")
    trunk.put("patch_generator.pos_embed", trunk.normal(1, side * side, width))
    trunk.put("patch_generator.cls_token.token", trunk.normal(num_cls + registers, width))
    trunk.linear("patch_generator.embedder", 3 * patch_size**2, width, bias=dino)
    if video:
        trunk.linear("patch_generator.video_embedder", video * 3 * patch_size**2, width, bias=False)
    if patch_normalizer:
        trunk.norm("patch_generator.patch_normalizer", width)
    if dino:
        hidden = (int(int(4 * width) * 2 / 3) + 7) // 8 * 8
        scale = scale or "gamma"
    for i in range(depth):
        trunk.block(f"blocks.{i}", width, hidden, qkv_bias, scale, swiglu=dino)
    if model_norm or dino:
        trunk.norm("norm", width)
    weights = {name: value.to(dtype) for name, value in trunk.weights.items()}

    args = {
        "model": "dinov2_vitg14_reg" if dino else "vit_base_patch16_224",
        "model_kwargs": {"embed_dim": width, "depth": depth, "num_heads": num_heads},
        "cpe_max_size": cpe_max_size,
        "cls_token_per_teacher": cls_token_per_teacher,
        "register_multiple": register_multiple,
        "cpe_num_registers": cpe_num_registers,
        "spectral_reparam": False,
        "model_norm": model_norm,
        "dtype": "float32",
        "mlp_version": "v2",
        "spatial_mlp_version": None,
        "teachers": [dict(teacher) for teacher in teachers],
        **more_args,
    }
    if not qkv_bias:
        args["model_kwargs"]["qkv_bias"] = False
    if hidden != 4 * width and not dino:
        args["model_kwargs"]["mlp_ratio"] = hidden / width
    model = PublicRadio(weights, args, patch_size, num_heads)

    rest = Draw(seed + 1, "radio_model.")
    rest.put("input_conditioner.norm_mean", torch.tensor(MEAN).view(3, 1, 1))
    rest.put("input_conditioner.norm_std", torch.tensor(STD).view(3, 1, 1))
    for name, spec in (adaptors or {}).items():
        _add_adaptor(model, rest, name, spec, width)
    if normalizer:
        rest.put("feature_normalizer.mean", rest.normal(width))
        rest.put("feature_normalizer.tx", rest.normal(width, width, scale=1 / math.sqrt(width)))
    if inter_normalizer:
        turns = (depth,) if inter_normalizer == "per_layer" else ()
        rest.put("inter_feature_normalizer.alphas", 1 + rest.normal(depth, scale=0.3))
        rest.put("inter_feature_normalizer.means", rest.normal(depth, width))
        rest.put("inter_feature_normalizer.rotation", rest.normal(*turns, width, width, scale=1 / math.sqrt(width)))
    if store_summary:
        firsts = [[t["name"] for t in teachers].index(t["name"]) for t in teachers if t.get("use_summary", True)]
        idxs = sorted(set(firsts)) if cls_token_per_teacher else [0]
        rest.put("summary_idxs", torch.tensor(idxs))
    weights.update(rest.weights)
    return model


def _add_adaptor(model: PublicRadio, rest: Draw, name: str, spec: dict, width: int) -> None:
    up, inner, pre_norm = spec.get("up", 1), spec.get("inner", 1), spec.get("pre_norm", False)
    start = f"adaptors.{name}"
    rest.head(f"{start}.head_mlp", spec.get("summary", "v2"), width, 12, inner, pre_norm)
    rest.head(f"{start}.feat_mlp", spec.get("feature", "v2"), width, 10 * up * up, inner, pre_norm)
    model.upsample[name] = up
    for teacher in model.args["teachers"]:
        if teacher["name"] == name:
            teacher["mlp_version"] = spec.get("summary", "v2")
            teacher["spatial_mlp_version"] = spec.get("feature", "v2")
            teacher["fd_upsample_factor"] = up


# ---- on disk -------------------------------------------------------------------------------------------------------


def remote_config(model: PublicRadio) -> dict:
    """`config.json` as the remote code writes it."""
    weights = model.weights
    width = weights[f"{model.trunk}patch_generator.pos_embed"].shape[-1]
    means = weights.get("radio_model.inter_feature_normalizer.means")
    configs = {}
    for name, up in model.upsample.items():
        start = f"radio_model.adaptors.{name}"
        sizes = {
            "summary": _sizes(weights, f"{start}.head_mlp"),
            "feature": _sizes(weights, f"{start}.feat_mlp"),
        }
        sizes["feature"].update(upsample_factor=up, upsample_rank=None)
        index = [teacher["name"] for teacher in model.args["teachers"]].index(name)
        slot = model.args["teachers"][index].get("token_slot", index)
        configs[name] = {**sizes, "head_idx": slot if model.args["cls_token_per_teacher"] else 0}
    return {
        "architectures": ["RADIOModel"],
        "auto_map": {"AutoConfig": "hf_model.RADIOConfig", "AutoModel": "hf_model.RADIOModel"},
        "args": model.args,
        "version": "c-radio_v4-h",
        "patch_size": model.patch_size,
        "max_resolution": 2048,
        "preferred_resolution": [512, 512],
        "adaptor_names": sorted(configs) or None,
        "adaptor_configs": configs,
        "vitdet_window_size": None,
        "feature_normalizer_config": {"embed_dim": width} if "radio_model.feature_normalizer.mean" in weights else None,
        "inter_feature_normalizer_config": None
        if means is None
        else {
            "num_intermediates": len(means),
            "embed_dim": width,
            "rot_per_layer": weights["radio_model.inter_feature_normalizer.rotation"].ndim == 3,
        },
        "torch_dtype": "float32",
    }


def _sizes(weights: Weights, name: str) -> dict:
    name = f"{name}.mlp" if f"{name}.mlp.fc1.weight" in weights else name
    hidden, width = weights[f"{name}.fc1.weight"].shape
    last = "fc2" if f"{name}.fc2.weight" in weights else "final.2"
    inner = sum(f"{name}.inner.{3 * k}.weight" in weights or f"{name}.blocks.{k}.0.weight" in weights for k in range(9))
    out = len(weights.get(f"{name}.{last}.weight", ())) or None  # tests take weights away
    return {"input_dim": width, "hidden_dim": hidden, "output_dim": out, "num_inner": inner}


def write_remote(model: PublicRadio, out: Path, **changes) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps({**remote_config(model), **changes}))
    weights = {name: value.contiguous() for name, value in model.weights.items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def hub_state(model: PublicRadio) -> Weights:
    """The weights under the names of a torch.hub file."""
    return hub_names(model.weights, [teacher["name"] for teacher in model.args["teachers"]])


def write_hub(model: PublicRadio, path: Path, ema: bool = False, damp: bool = False, spectral: bool = False) -> Path:
    """A `.pth.tar`; `damp`: DAMP's parametrization level; `spectral`: reparametrised with converged vectors."""
    state = hub_state(model)
    args = {**model.args, "dtype": torch.float32, "damp": 0.1 if damp else None, "spectral_reparam": spectral}
    if spectral:
        state = spectral_state(state)
    elif damp:
        state = {parametrized(name): value for name, value in state.items()}
    content = {"arch": args["model"], "epoch": 7, "args": argparse.Namespace(**args), "state_dict": state}
    if ema:
        content["state_dict_ema"] = {f"module.{name}": value for name, value in state.items()}
        content["state_dict"] = {name: torch.full_like(value, 0) for name, value in state.items()}
    torch.save(content, path)
    return path


BLOCK_MATRICES = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")


def is_matrix_of_block(name: str) -> bool:
    return name.startswith("base_model.") and "blocks." in name and name.endswith(BLOCK_MATRICES)


def parametrized(name: str) -> str:
    return name.removesuffix("weight") + "parametrizations.weight.original" if is_matrix_of_block(name) else name


def spectral_state(state: Weights) -> Weights:
    """Every matrix W of a block as `original` = c W, the singular vectors of c W and the scale that gives W back."""
    out = {}
    for name, weight in state.items():
        if not is_matrix_of_block(name):
            out[name] = weight
            continue
        start = name.removesuffix("weight") + "parametrizations.weight"
        parts = weight.chunk(3) if "qkv" in name else [weight]
        originals = []
        for k, part in enumerate(parts):
            original = part * (0.5 + k)
            u, sigma, vh = torch.linalg.svd(original.double(), full_matrices=False)
            wanted = torch.linalg.matrix_norm(part.double(), 2)  # softplus(scale) + 0.05 = spectral norm of the folded
            where = f"{start}.0.parts.{k}" if "qkv" in name else f"{start}.0"
            out[f"{where}._u"], out[f"{where}._v"] = u[:, 0].float(), vh[0].float()
            out[f"{where}._sn_version"] = torch.tensor(2)
            out[f"{where}.scale"] = torch.log(torch.expm1(wanted - 0.05)).float().view(1, 1)
            originals.append(original)
        out[f"{start}.original"] = torch.cat(originals)
    return out
