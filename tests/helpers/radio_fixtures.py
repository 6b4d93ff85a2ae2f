"""Checkpoints on disk, in every public form, from the parity fixtures (NVlabs/RADIO on small random weights)."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FIXTURES = Path(__file__).parents[1] / "fixtures/radio"


def hub_names(weights: dict[str, torch.Tensor], teachers: list[str]) -> dict[str, torch.Tensor]:
    """Names of a torch.hub file: heads by teacher index, normalizers with an underscore, no summary_idxs."""
    state = {}
    for name, value in weights.items():
        name = name.removeprefix("radio_model.")
        if name == "summary_idxs":
            continue
        if name.startswith("adaptors."):
            _, teacher, kind, rest = name.split(".", 3)
            kind = "_heads" if kind == "head_mlp" else "_feature_projections"
            name = f"{kind}.{teachers.index(teacher)}.{rest}"
        for old, new in (
            ("inter_feature_normalizer.", "_intermediate_feature_normalizer."),
            ("feature_normalizer.", "_feature_normalizer."),
            ("model.", "base_model."),
        ):
            if name.startswith(old):
                name = new + name.removeprefix(old)
                break
        state[name] = value
    return state


class Case:
    """One fixture: what was run (`facts`), its weights under public names, inputs and outputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "weights.safetensors")
        self.inputs = load_file(folder / "inputs.safetensors")
        self.outputs = load_file(folder / "outputs.safetensors")

    def args(self) -> dict:
        args = dict(self.facts["hf_args"])
        if self.facts.get("spectral_reparam"):
            args["spectral_reparam"] = True
        return args

    def remote_config(self) -> dict:
        """As the remote code writes config.json."""
        facts = self.facts
        return {
            "architectures": ["RADIOModel"],
            "auto_map": {"AutoConfig": "hf_model.RADIOConfig", "AutoModel": "hf_model.RADIOModel"},
            "args": self.args(),
            "version": "c-radio_v4-h",
            "patch_size": facts["patch_size"],
            "max_resolution": 2048,
            "preferred_resolution": [512, 512],
            "adaptor_names": facts.get("adaptor_names"),
            "adaptor_configs": facts.get("adaptor_configs") or {},
            "vitdet_window_size": facts.get("vitdet_window_size"),
            "feature_normalizer_config": {"embed_dim": facts["embed_dim"]} if facts.get("feature_normalizer") else None,
            "inter_feature_normalizer_config": facts.get("inter_feature_normalizer"),
            "torch_dtype": "float32",
        }

    def write_remote(self, out: Path, **changes) -> Path:
        """A remote-code folder."""
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text(json.dumps({**self.remote_config(), **changes}))
        save_file(self.weights, out / "model.safetensors", metadata={"format": "pt"})
        return out

    def hub_state(self) -> dict[str, torch.Tensor]:
        """The weights under the names of a torch.hub file."""
        return hub_names(self.weights, [teacher["name"] for teacher in self.facts["teachers"]])

    def write_hub(self, path: Path, ema: bool = False, **changes) -> Path:
        """A torch.hub file, with `module.` before every name as distributed training leaves it."""
        args = {**self.args(), **changes}
        for teacher in args["teachers"]:
            config = (self.facts.get("adaptor_configs") or {}).get(teacher["name"])
            if config:
                teacher["fd_upsample_factor"] = config["feature"]["upsample_factor"]
        args["dtype"] = torch.float32
        state = {f"module.{name}": value for name, value in self.hub_state().items()}
        content = {"arch": args["model"], "epoch": 3, "args": argparse.Namespace(**args), "state_dict": state}
        if ema:
            content["state_dict_ema"] = state
            content["state_dict"] = {name: torch.zeros_like(value) for name, value in state.items()}
        torch.save(content, path)
        return path


def cases(root: Path = FIXTURES) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/weights.safetensors"))
