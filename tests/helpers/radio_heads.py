"""Teacher heads of the fixture cases: weights under our names, and the tokens that fed them in the reference run."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "radio"


def load_case(case: str) -> tuple[dict, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """`config.json`, weights and outputs of a case; weights named as in our state dict."""
    folder = FOLDER / case
    config = json.loads((folder / "config.json").read_text())
    weights = {k.removeprefix("radio_model."): v for k, v in load_file(folder / "weights.safetensors").items()}
    return config, our_names(weights), load_file(folder / "outputs.safetensors")


def our_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The blocks of an attention head as native layers: the least that these tests need of the loader's renaming."""
    renamed = {}
    for name, weight in weights.items():
        name = name.replace("attn.proj", "attention.o_proj")
        name = name.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
        if "attn.qkv" in name:
            for letter, part in zip("qkv", weight.chunk(3)):
                renamed[name.replace("attn.qkv", f"attention.{letter}_proj")] = part.clone()
        else:
            renamed[name] = weight
    return renamed


def grid_of(config: dict, picture: str) -> tuple[int, int]:
    height, width = config["input_keys"][picture][2:]
    return height // config["patch_size"], width // config["patch_size"]


def cls_token(config: dict, outputs: dict, picture: str, head_idx: int) -> torch.Tensor:
    """The prefix token `(B, D)` of a head, out of the backbone's summary, which lists those of `summary_idxs`."""
    tokens = outputs[f"{picture}.backbone.summary"].unflatten(1, (-1, config["embed_dim"]))
    return tokens[:, config["summary_idxs"].index(head_idx)]
