"""Run by `tests/vlm/test_export.py` in the bare environment: open a checkpoint every way, compare, save it again.

Arguments: checkpoint folder, reference file (inputs and results from the package), folder to save to. Prints one JSON.
"""

import importlib.util
import json
import sys

import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    pipeline,
)

folder, reference_file, again = sys.argv[1:4]
for name in ("vlm", "projectors", "encoders", "llm", "torchvision", "accelerate", "peft", "scipy", "av"):
    assert importlib.util.find_spec(name) is None, f"{name} can be imported: this environment is not bare"

torch.set_num_threads(1)  # as where the reference was made: sums in another order are no defect of the export
reference = torch.load(reference_file, weights_only=False)
image = Image.fromarray(reference["image"].numpy())
frames = [Image.fromarray(frame.numpy()) for frame in reference["frames"]]
messages = [
    {"role": "user", "content": [
        {"type": "image", "image": image}, {"type": "video", "video": frames}, {"type": "text", "text": "What is it?"}]}
]  # fmt: skip

assert type(AutoConfig.from_pretrained(folder, trust_remote_code=True)).__name__ == "RadioVLMConfig"
assert type(AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)).__name__ == "RadioVLMImageProcessor"
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
found = {"same_inputs": all(torch.equal(inputs[key], value) for key, value in reference["inputs"].items())}

for auto in (AutoModel, AutoModelForImageTextToText):
    model, info = auto.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    model.eval()
    with torch.inference_mode():
        logits = model(**inputs).logits
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    found[auto.__name__] = {
        "class": type(model).__name__,
        "largest_difference": (logits - reference["logits"]).abs().max().item(),
        "same_generation": torch.equal(ids, reference["generated"]),
    }

pipe = pipeline("image-text-to-text", model=folder, trust_remote_code=True)
answer = pipe(text=messages, max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
found["pipeline_same_text"] = answer == reference["text"]
found["pipeline_text"] = [answer, reference["text"]]

model.save_pretrained(again)
processor.save_pretrained(again)
print(json.dumps(found))
