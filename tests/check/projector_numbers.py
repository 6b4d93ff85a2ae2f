"""The numbers projectors promise: what token merging keeps, against averages, and what it costs.

Reconstruction: every patch gets its token back; the squared error of merging to a quarter over that of 2 x 2 averages,
on made-up features, on those of an encoder with random weights, and of a demo's trained encoder where there is one.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

SHARED = Path(os.environ.get("RADIO_VLM_SHARED", ROOT.parent / "shared"))
SIDES = (1, 2, 3, 5, 8, 13, 16, 21, 32, 48)
STRIDE = 3  # the projector's default


def promises() -> list[Number]:
    """Counts, means and untouched tokens over 500 combinations of grid and share."""
    import torch

    from projectors.components import build_projector, default_config, num_tokens

    torch.manual_seed(0)
    count = mean = restored = 0.0
    for keep in (0.05, 0.1, 0.25, 0.5, 1.0):
        config = default_config({"type": "token_merging", "keep": keep}, 16, 8)
        projector = build_projector(config, 16, 8)
        for grid in [(h, w) for h in SIDES for w in SIDES]:
            x = torch.randn(2, grid[0] * grid[1], 16) + 1
            merging = projector.match(x, grid)
            tokens, sizes = merging.merge(x)
            count = max(count, abs(tokens.shape[1] - num_tokens(config, *grid)))
            means = (tokens * sizes[..., None]).sum(1) / sizes.sum(1, keepdim=True)
            mean = max(mean, ((means - x.mean(1)).norm() / x.mean(1).norm()).item())
            alone = sizes.gather(1, merging.target) == 1
            if alone.any():
                restored = max(restored, (merging.unmerge(tokens) - x)[alone].abs().max().item())
    command = "python tests/check/projector_numbers.py OUT"
    return [
        Number("token merging: tokens minus num_tokens, 500 cases", "<= 0", count, command),
        Number("token merging: mean of a picture, relative error", "<= 1e-5", mean, command),
        Number("token merging: unmerged tokens after unmerge(merge(x))", "<= 0", restored, command),
    ]


def ratio(features, grid: tuple[int, int]) -> float:
    """Error of merging to a quarter / error of 2 x 2 averages, which on odd grids are a few more."""
    from tests.helpers.radio_like import merged_error, pooled_error

    return merged_error(features, grid, grid[0] * grid[1] // 4, STRIDE) / pooled_error(features, grid)


def encoded(model, files: list[Path], longest: int) -> Iterator:
    """Features `(1, h*w, C)` and grid of each picture, its longer side `longest` pixels."""
    import numpy as np
    import torch
    from PIL import Image

    for path in files:
        image = Image.open(path).convert("RGB")
        width, height = (max(4, round(side * longest / max(image.size) / 16)) * 16 for side in image.size)
        pixels = torch.from_numpy(np.array(image.resize((width, height)))).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            yield model(pixels).features.float(), (height // 16, width // 16)


def reconstruction(demo: Path) -> list[Number]:
    import torch

    from encoders import RadioEncoder, RadioEncoderConfig, RadioVisionModel
    from tests.helpers.radio_like import radio_like

    grids = [(8, 8), (16, 16), (24, 18), (17, 23), (48, 48)]
    found = {"made-up features": [ratio(radio_like(*grid, seed=seed), grid) for grid in grids for seed in range(4)]}
    folders = ("charts/images", "pubtabnet/images", "misc_docs", "nih_cxr")
    real = [path for name in folders for path in sorted((SHARED / "data" / name).glob("*.[pj][np]g"))[:6]]
    if real:
        torch.manual_seed(0)
        sizes = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "initializer_range": 0.06}
        random = RadioVisionModel(RadioEncoderConfig(**sizes, max_img_size=512)).eval()
        found["random encoder, real images, 512 px"] = [ratio(*pair) for pair in encoded(random, real, 512)]
    if (demo / "bases/radio").is_dir():
        trained = RadioEncoder.from_pretrained(demo / "bases/radio").eval()
        for task in ("pages", "documents"):
            files = sorted((demo / f"data/{task}-test/images").glob("*.png"))[:100]
            found[f"trained encoder, demo {task}"] = [ratio(*pair) for pair in encoded(trained, files, 128)]
        if real:
            found["trained encoder, real images, 512 px"] = [ratio(*pair) for pair in encoded(trained, real, 512)]
    rows = []
    for name, ratios in found.items():
        title = f"merging / averages, error at 1/4: {name}"
        rows.append(Number(f"{title}, mean of {len(ratios)}", "< 1", statistics.mean(ratios), f"stride {STRIDE}"))
        rows.append(Number(f"{title}, worst", "", max(ratios), f"stride {STRIDE}"))
    return rows


def cost() -> list[Number]:
    """Seconds of matching and merging to a quarter, 1280 channels, and the same over the head that follows."""
    import torch

    from projectors.components import build_projector, default_config

    projector = build_projector(default_config({"type": "token_merging"}, 1280, 1024), 1280, 1024)
    rows = []
    for grid, repeats in (((48, 48), 5), ((104, 128), 3)):
        x = torch.randn(1, grid[0] * grid[1], 1280)
        times: dict[str, list[float]] = {"merge": [], "head": []}
        with torch.inference_mode():
            for _ in range(repeats):
                start = time.perf_counter()
                tokens, _ = projector.match(x, grid).merge(x)
                middle = time.perf_counter()
                projector.linear_2(projector.linear_1(projector.layer_norm(tokens)).relu().square())
                times["merge"].append(middle - start)
                times["head"].append(time.perf_counter() - middle)
        seconds = {name: statistics.median(found) for name, found in times.items()}
        title = f"token merging of {grid[0]}x{grid[1]} patches, {torch.get_num_threads()} threads"
        rows.append(Number(f"{title}: seconds", "", seconds["merge"], "1280 channels, float32"))
        rows.append(Number(f"{title}: times its head", "", seconds["merge"] / seconds["head"], "1280 -> 4096 -> 1024"))
    return rows


def projector_numbers(out: Path, demo: Path = ROOT / "runs/demo") -> list[Number]:
    """All rows. `out` is not used; `demo`: the folder of a finished `radio-vlm demo`, left out where there is none."""
    return [*promises(), *reconstruction(demo), *cost()]


if __name__ == "__main__":
    print(table(projector_numbers(Path(sys.argv[1]))))
