"""The two-layer heads shared by projectors: norm -> Linear -> activation -> Linear.

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


class MLPHead(nn.Module):
    """`(N, d_in) -> (N, d_out)`.

    Args:
        config: keys `norm` ("rmsnorm" | "layernorm"), `activation` ("relu2" | "gelu"), `hidden_size`, `bias`, `eps`.
        d_in: input width. d_out: output width.
    """

    def __init__(self, config: dict, d_in: int, d_out: int) -> None:
        super().__init__()
        for key, table in (("norm", NORMS), ("activation", ACTIVATIONS)):
            if config[key] not in table:
                raise ValueError(f"projector_config[{key!r}] is {config[key]!r}; known: {', '.join(sorted(table))}")
        bias = config.get("bias", False)
        self.activation = config["activation"]
        self.layer_norm = NORMS[config["norm"]](d_in, eps=config.get("eps", 1e-5))
        self.linear_1 = nn.Linear(d_in, config["hidden_size"], bias=bias)
        self.linear_2 = nn.Linear(config["hidden_size"], d_out, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear_1(self.layer_norm(x))
        return self.linear_2(ACTIVATIONS[self.activation](x))
