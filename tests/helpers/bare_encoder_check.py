"""Run by `tests/vlm/test_encoder_export.py` in the bare environment: open an encoder, compare, save it again.

Arguments: folder, reference file (pixels and outputs from the package), folder to save to. Prints one JSON.
"""

import importlib.util
import json
import sys

import torch
from transformers import AutoConfig, AutoModel

folder, reference_file, again = sys.argv[1:4]
for name in ("vlm", "projectors", "encoders", "llm", "torchvision", "timm", "einops", "scipy"):
    assert importlib.util.find_spec(name) is None, f"{name} can be imported: this environment is not bare"

torch.set_num_threads(1)
reference = torch.load(reference_file, weights_only=True)
found = {"config": type(AutoConfig.from_pretrained(folder, trust_remote_code=True)).__name__}


def differences(place: str) -> dict[str, float]:
    model, info = AutoModel.from_pretrained(place, trust_remote_code=True, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    with torch.inference_mode():
        out = model.eval()(reference["pixels"])
    got = {"summary": out.summary, "features": out.features}
    for name, head in (getattr(out, "adaptors", None) or {}).items():
        got |= {f"{name}.summary": head.summary, f"{name}.features": head.features}
    assert set(got) == set(reference["outputs"]), sorted(got)
    found["class"] = type(model).__name__
    model.save_pretrained(again)
    return {name: (value - reference["outputs"][name]).abs().max().item() for name, value in got.items()}


found["first"] = differences(folder)
found["again"] = differences(again)
print(json.dumps(found))
