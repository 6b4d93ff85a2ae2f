"""The numbers geometry promises: 10,000 sizes without a failure, NVIDIA's grids, and the time to prepare a page.

The page is timed against every PIL-backed image processor of transformers that resizes it to the same size by the same
filter, whether it normalises or not; the ratio is to the fastest. In a process of its own for each number of threads,
the processors in turns, medians.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

TIMING = """
import glob, importlib, inspect, json, logging, statistics, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np, torch, transformers
from PIL import Image
from transformers.image_processing_backends import PilBackend
from vlm import RadioVLMImageProcessor

logging.disable(logging.WARNING)
torch.set_num_threads(int(sys.argv[1]))
colours = np.random.default_rng(0).integers(0, 256, (140, 100, 3), dtype=np.uint8)
page = Image.fromarray(colours).resize((1000, 1400), Image.Resampling.BILINEAR)
ours = RadioVLMImageProcessor()
grid_h, grid_w = ours(page, return_tensors="pt")["image_grid_hw"][0].tolist()
height, width = grid_h * 16, grid_w * 16
options = dict(
    size={"height": height, "width": width}, resample=Image.Resampling.BICUBIC, do_resize=True, do_rescale=True,
    do_normalize=True, do_center_crop=False, do_pad=False, image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28],
    return_tensors="pt",
)
wanted = np.asarray(page.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)[::7, ::7].reshape(-1, 3)

def same_resize(pixels):  # one picture, every channel of it one of the page's, up to scale and shift
    if tuple(pixels.shape[-3:]) != (3, height, width) or pixels.numel() != 3 * height * width:
        return False
    for channel in np.asarray(pixels).reshape(3, height, width)[:, ::7, ::7].reshape(3, -1):
        if max(np.corrcoef(channel, wanted[:, c])[0, 1] for c in range(3)) < 0.99999:
            return False
    return True

rivals, seen = {}, 0
for file in sorted(glob.glob(transformers.__path__[0] + "/models/*/image_processing_pil_*.py")):
    model, name = file.rsplit("/", 2)[1:]
    try:
        module = importlib.import_module(f"transformers.models.{model}.{name[:-3]}")
    except ImportError:
        continue
    for cls in vars(module).values():
        if not (inspect.isclass(cls) and cls.__module__ == module.__name__ and issubclass(cls, PilBackend)):
            continue
        seen += 1
        try:
            processor = cls()
            if not same_resize(torch.as_tensor(processor(page, **options)["pixel_values"])):
                continue
            start = time.perf_counter()
            processor(page, **options)
            rivals[cls.__name__] = (time.perf_counter() - start, processor)
        except Exception:  # other options, other inputs: it does not do this resize
            continue
fastest = sorted(rivals, key=lambda name: rivals[name][0])[:6]
times = {"ours": [], **{name: [] for name in fastest}}
for _ in range(21):
    for name, found in times.items():
        start = time.perf_counter()
        if name == "ours":
            ours(page, return_tensors="pt")
        else:
            rivals[name][1](page, **options)
        found.append(time.perf_counter() - start)
medians = {name: statistics.median(found) for name, found in times.items()}
print(json.dumps({"medians": medians, "same": len(rivals), "seen": seen}))
"""


def preparing(threads: int) -> list[Number]:
    """Time of a 1000 x 1400 page, PIL image to patches, to that of the fastest rival."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    run = subprocess.run(
        [sys.executable, "-c", TIMING, str(threads)], cwd=ROOT, check=True, capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    found = json.loads(run.stdout.splitlines()[-1])
    mine = found["medians"].pop("ours")
    assert found["same"] >= 10, "rivals that resize alike have not been found"
    fastest = min(found["medians"], key=found["medians"].get)
    command = f"RadioVLMImageProcessor / {fastest}, fastest of {found['same']} that resize alike ({found['seen']} seen)"
    title = f"a 1000 x 1400 page, {threads} thread{'s' if threads > 1 else ''}"
    return [
        Number(f"{title}: time / fastest PIL-backed processor's", "<= 1.0", mine / found["medians"][fastest], command),
        Number(f"{title}: milliseconds", "", mine * 1000, "RadioVLMImageProcessor, PIL image to patches"),
    ]


def sizes(count: int = 10_000) -> list[Number]:
    from tests.helpers.geometry_property import failures

    found = failures(count)
    command = "tests.helpers.geometry_property.failures: all modes, frames, prompts under a bound, placeholders"
    return [Number(f"geometry: broken promises over {count:,} sizes", "<= 0", len(found), command)]


def grids(file: Path) -> list[Number]:
    """Rows of the reference's grids that ours differ from, and ours where it divides by zero."""
    from vlm.geometry import plan_image

    def plan(height: int, width: int, patch: int, multiple: int, low: int, high: int) -> tuple[int, int]:
        geometry = {"patch_size": patch, "multiple": multiple, "min_num_patches": low, "max_num_patches": high}
        return plan_image(height, width, geometry)

    recorded = json.loads(file.read_text())
    rows, crashes = recorded["rows"], recorded["reference_crashes"]
    wrong = sum(plan(*row[:6]) != tuple(row[6:]) for row in rows)
    senseless = sum(not 0 < (grid := plan(*row))[0] * grid[1] <= row[5] for row in crashes)
    return [
        Number(f"nemotron_h_omni grids: rows of {len(rows):,} that differ", "<= 0", wrong, "vlm.geometry.plan_image"),
        Number(
            f"sizes where the reference divides by zero ({len(crashes)}): without a grid in the budget",
            "<= 0",
            senseless,
            "vlm.geometry.plan_image",
        ),
    ]


def geometry_numbers(out: Path, shared: Path = ROOT.parent / "shared") -> list[Number]:
    recorded = shared / "fixtures/omni/patch_grids.json"
    if not recorded.is_file():
        recorded = ROOT / "tests/fixtures/omni/patch_grids_sample.json"
    return [*sizes(), *grids(recorded), *preparing(1), *preparing(2)]


if __name__ == "__main__":
    print(table(geometry_numbers(Path(sys.argv[1]))))
