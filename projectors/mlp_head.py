"""The heads shared by projectors: norm -> Linear -> activation -> Linear, or one Linear.

`rmsnorm` + `relu2` without biases is the head of Nemotron Nano V2 VL (arXiv 2511.03929), `layernorm` + `gelu` with
biases that of LLaVA-style models. Parameter names equal those of transformers' `nemotron_h_omni`.
"""

import torch
import torch.nn.functional as F
from torch import nn

ACTIVATIONS = {"relu2": lambda x: F.relu(x).square(), "gelu": F.gelu}


class Float32RMSNorm(nn.Module):
    """RMSNorm whose whole arithmetic, the weight included, is float32; only the result takes the input's dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (self.weight.float() * x32).to(x.dtype)


class Float32LayerNorm(nn.LayerNorm):
    """LayerNorm computed in float32 whatever the dtype of the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


NORMS = {"rmsnorm": Float32RMSNorm, "layernorm": Float32LayerNorm}


# What `projector_config["head"]` fills in; the explicit keys say the same and win. `hidden_size` per width of the LLM.
HEADS = {
    "nemotron": {"norm": "rmsnorm", "activation": "relu2", "hidden_size": 4, "bias": False},
    "llava": {"norm": "layernorm", "activation": "gelu", "hidden_size": 1, "bias": True},
    "linear": {"norm": "layernorm", "activation": None, "hidden_size": None, "bias": True},
}


def head_defaults(head: str, d_text: int) -> dict:
    """The keys of `MLPHead` that the name of a head stands for; ValueError listing the known names."""
    if head not in HEADS:
        raise ValueError(f"projector_config['head'] is {head!r}; known: {', '.join(sorted(HEADS))}")
    keys = {"head": head, **HEADS[head], "eps": 1e-5}
    if keys["hidden_size"] is not None:
        keys["hidden_size"] *= d_text
    return keys


class MLPHead(nn.Module):
    """`(N, d_in) -> (N, d_out)`.

    Args:
        config: keys `norm` ("rmsnorm" | "layernorm" | None), `activation` ("relu2" | "gelu"), `hidden_size`, `bias`,
            `eps`. With `hidden_size` None there is one linear layer, and `activation` must be None too.
        d_in: input width. d_out: output width.
    """

    def __init__(self, config: dict, d_in: int, d_out: int) -> None:
        super().__init__()
        hidden = config["hidden_size"]
        if hidden is not None and (not isinstance(hidden, int) or hidden < 1):
            raise ValueError(f"projector_config['hidden_size'] is {hidden!r}: a positive int, or null for one layer")
        for key, table, none in (("norm", NORMS, True), ("activation", ACTIVATIONS, hidden is None)):
            if config[key] not in table and not (none and config[key] is None):
                known = ", ".join(sorted(table)) + (", null" if none else "")
                raise ValueError(f"projector_config[{key!r}] is {config[key]!r}; known: {known}")
        if hidden is None and config["activation"] is not None:
            raise ValueError(
                f"projector_config['activation'] is {config['activation']!r}, but with hidden_size null there is one "
                "linear layer and nothing to activate: set hidden_size, or activation to null"
            )
        bias = config.get("bias", False)
        self.activation = config["activation"]
        self.layer_norm = NORMS[config["norm"]](d_in, eps=config.get("eps", 1e-5)) if config["norm"] else nn.Identity()
        self.linear_1 = nn.Linear(d_in, d_out if hidden is None else hidden, bias=bias)
        self.linear_2 = nn.Identity() if hidden is None else nn.Linear(hidden, d_out, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear_1(self.layer_norm(x))
        if self.activation is not None:
            x = ACTIVATIONS[self.activation](x)
        return self.linear_2(x)
