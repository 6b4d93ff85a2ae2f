"""The numbers RADIO encoders promise: parity with the reference, cost of opening C-RADIOv4-H, gain of windows.

Costs are measured in processes of their own (peak memory is a process's), each ratio within one run.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

LOADING = """
import json, statistics, sys, time
import torch
from encoders import RadioEncoder

def peak():  # VmHWM counts mapped file pages too: nothing is hidden
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024

path = sys.argv[1] + "/model.safetensors"
buffer = memoryview(bytearray(1 << 24))
def read():  # into memory, as opening must
    start = time.perf_counter()
    whole = open(path, "rb").read()
    return time.perf_counter() - start
def pass_through():  # into one small buffer: what the page cache alone takes
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start
pass_through()
before = peak()
start = time.perf_counter()
encoder = RadioEncoder.from_pretrained(sys.argv[1])
load = time.perf_counter() - start
extra = peak() - before
assert sum(p.numel() for p in encoder.parameters()) > 6e8
del encoder
times = {"load": [load], "read": [], "pass": []}
for _ in range(5):  # in turns: a noisy machine disturbs all alike
    start = time.perf_counter()
    RadioEncoder.from_pretrained(sys.argv[1])
    times["load"].append(time.perf_counter() - start)
    times["read"].append(read())
    times["pass"].append(pass_through())
print(json.dumps({name: statistics.median(found) for name, found in times.items()} | {"extra": extra}))
"""

WINDOWS = """
import json, sys, time
import torch
from encoders import RadioEncoderConfig, RadioVisionModel

window = int(sys.argv[1]) or None
size = int(sys.argv[2])
torch.manual_seed(0)
with torch.device("meta"):
    model = RadioVisionModel(RadioEncoderConfig(
        hidden_size=1152, num_hidden_layers=27, num_attention_heads=16, mlp_ratio=4304 / 1152, vitdet_window_size=window
    ))
model = model.to_empty(device="cpu").eval()
for tensor in [*model.parameters(), *model.buffers()]:
    if tensor.is_floating_point():
        torch.nn.init.normal_(tensor.data, std=0.02)
model.summary_idxs.copy_(torch.tensor([0, 1]))
model.input_conditioner.norm_std.fill_(1.0)
x = torch.rand(1, 3, size, size)

def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
with torch.inference_mode():
    model(x[..., :256, :256])
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()
    start = time.perf_counter()
    model(x)
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak() - before}))
"""


def measure(script: str, *words: object) -> dict:
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def write_huge(folder: Path) -> int:
    """C-RADIOv4-H with random weights in the public layout; returns the size of its file in bytes."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    width, depth = 1280, 32
    shapes = {
        "radio_model.input_conditioner.norm_mean": (3, 1, 1),
        "radio_model.input_conditioner.norm_std": (3, 1, 1),
        "radio_model.model.patch_generator.embedder.weight": (width, 768),
        "radio_model.model.patch_generator.pos_embed": (1, 128 * 128, width),
        "radio_model.model.patch_generator.cls_token.token": (10, width),
    }
    for block in (f"radio_model.model.blocks.{i}" for i in range(depth)):
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}.{name}.weight": (width,), f"{block}.{name}.bias": (width,)}
    torch.manual_seed(0)
    weights = {name: torch.rand(shape) for name, shape in shapes.items()}
    weights["radio_model.summary_idxs"] = torch.tensor([0, 1])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    teachers = [{"name": "siglip2-g"}, {"name": "dino_v3_7b"}, {"name": "sam3", "use_summary": False}]
    args = {
        "model": "vit_huge_patch16_224",
        "in_chans": None,
        "input_size": None,
        "model_kwargs": {},
        "cpe_max_size": 2048,
        "cls_token_per_teacher": True,
        "register_multiple": 10,
        "cpe_num_registers": None,
        "dtype": "float32",
        "mlp_version": "v2",
        "teachers": teachers,
    }
    config = {"args": args, "version": "c-radio_v4-h", "patch_size": 16, "adaptor_configs": {}}
    (folder / "config.json").write_text(json.dumps(config))
    return (folder / "model.safetensors").stat().st_size


def loading(out: Path) -> list[Number]:
    size = write_huge(out)
    found = measure(LOADING, out)
    (out / "model.safetensors").unlink()
    command = "RadioEncoder.from_pretrained (631M, public layout)"
    return [
        Number("C-RADIOv4-H: time to open / time to read the file", "<= 1.5", found["load"] / found["read"], command),
        Number("C-RADIOv4-H: time to open / one pass over the cached file", "", found["load"] / found["pass"], command),
        Number("C-RADIOv4-H: peak memory of opening / size of the file", "<= 1.2", found["extra"] / size, command),
    ]


def windows(size: int = 2048) -> list[Number]:
    everywhere, windowed = measure(WINDOWS, 0, size), measure(WINDOWS, 16, size)
    command = f"SO400M, {size} x {size}, float32"
    return [
        Number("ViTDet window 16: global seconds", "", everywhere["seconds"], command),
        Number("ViTDet window 16: times faster", ">= 2", everywhere["seconds"] / windowed["seconds"], command),
        Number("ViTDet window 16: peak activations / global's", "< 1", windowed["peak"] / everywhere["peak"], command),
    ]


def parity(out: Path, root: Path) -> list[Number]:
    """Largest error of every recorded case below `root`, over all forms of checkpoint."""
    from encoders import RadioEncoder
    from tests.helpers.radio_fixtures import Case, cases
    from tests.helpers.radio_parity import TOLERANCE, compare, options, sources

    rows = []
    for name in cases(root):
        if not (root / name / "inputs.safetensors").is_file() or name == "i_cpe_train":
            continue  # parts, and the positions of training, which the tests compare
        case = Case(root / name)
        (out / name).mkdir(parents=True, exist_ok=True)
        error = max(
            compare(RadioEncoder.from_pretrained(source, **options(case)), case, float("inf"))
            for source in sources(case, out / name).values()
        )
        rows.append(Number(f"RADIO {name}: largest error", f"<= {TOLERANCE}", error, "RadioEncoder.from_pretrained"))
    return rows


def folding(case_folder: Path) -> list[Number]:
    """Folded spectral weights against those the reference folded."""
    from encoders.spectral import fold
    from tests.helpers.radio_fixtures import load_file

    folded = fold(load_file(case_folder / "weights.safetensors"))
    wanted = load_file(case_folder / "outputs.safetensors")
    errors = [
        (folded.read("base_model." + name.removeprefix("fold_eval.")) - value).abs().max().item()
        for name, value in wanted.items()
        if name.startswith("fold_eval.")
    ]
    assert len(errors) >= 8
    return [Number("RADIO spectral folding: largest error", "<= 1e-6", max(errors), "encoders.spectral.fold")]


def packing() -> list[Number]:
    """Pictures of several sizes in one packed call against one call each, values and gradients, with and without
    windows."""
    import torch

    from encoders import RadioEncoderConfig, RadioVisionModel

    torch.manual_seed(0)
    rows = []
    grids = [(4, 6), (2, 4), (8, 2), (4, 6)]
    for window in (None, 2):
        model = RadioVisionModel(
            RadioEncoderConfig(
                hidden_size=64,
                num_hidden_layers=6,
                num_attention_heads=4,
                max_img_size=256,
                initializer_range=0.1,
                vitdet_window_size=window,
                vitdet_num_global=2,
            )
        ).eval()
        pictures = [torch.rand(1, 3, 16 * h, 16 * w) for h, w in grids]
        patches = torch.cat([model.embeddings._image_to_patches(picture)[0] for picture in pictures])
        for name in ("values", "gradients"):
            found = []
            for packed in (True, False):
                model.zero_grad()
                if packed:
                    features = model(patches, grids=grids, how="packed").features
                else:
                    features = torch.cat([model(picture).features[0] for picture in pictures])
                features.square().mean().backward()
                grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
                found.append(features.detach() if name == "values" else torch.cat(grads))
            error = (found[0] - found[1]).abs().max().item()
            title = f"RADIO packed minus one by one, {name}, {f'window {window}' if window else 'no windows'}"
            rows.append(Number(title, "<= 2e-5", error, "RadioVisionModel"))
    return rows


def encoder_numbers(out: Path, shared: Path) -> list[Number]:
    own = ROOT / "tests/fixtures/radio"
    recorded = shared / "fixtures/radio"
    root = recorded if recorded.is_dir() else own
    rows = [*parity(out / "parity", root), *folding(root / "g_spectral"), *packing()]
    return [*rows, *loading(out / "c-radio_v4-h"), *windows()]


if __name__ == "__main__":
    print(table(encoder_numbers(Path(sys.argv[1]), ROOT.parent / "shared")))
