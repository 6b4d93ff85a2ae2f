"""The package's own results for one image and one video, and their comparison in the bare environment."""

import json
from pathlib import Path

import torch
from PIL import Image

from tests.helpers.bare_env import run_bare


def write_reference(model, processor, path: Path) -> Path:
    """Inputs, logits, generated ids and text for a random image and a video given as frames."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (80, 112, 3), generator=generator, dtype=torch.uint8)
    frames = torch.randint(0, 256, (3, 64, 64, 3), generator=generator, dtype=torch.uint8)
    pictures = [Image.fromarray(x.numpy()) for x in (image, *frames)]
    content = [{"type": "image", "image": pictures[0]}, {"type": "video", "video": pictures[1:]}]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}]
    inputs = processor.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    model.eval()
    torch.set_num_threads(1)
    with torch.inference_mode():
        logits = model(**inputs).logits
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    text = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    tensors = {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)}
    found = {"image": image, "frames": frames, "inputs": tensors, "logits": logits, "generated": ids, "text": text}
    torch.save(found, path)
    return path


def check_bare(site: Path, folder: Path, reference: Path, cwd: Path) -> tuple[dict, Path]:
    """Runs the check in the bare environment; returns what it found and the folder it saved to."""
    cwd.mkdir(parents=True)
    code = (Path(__file__).parent / "bare_check.py").read_text()
    done = run_bare(code, site, cwd, str(folder), str(reference), str(cwd / "again"))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1]), cwd / "again"
