"""CONTRIBUTING.md, followed step by step: every file it shows is put into a copy of the tree and must then work."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("vlm", "encoders", "projectors", "llm", "training", "eval")

CHECKS = {
    "projectors/mean_pool.py": """
import torch
from projectors.components import build_projector, get_projector, num_tokens, static_source
config = get_projector("mean_pool").defaults(8, 16)
grids = [(2, 4), (4, 4)]
tokens = build_projector(config, 8, 16)(torch.randn(24, 8), grids)
assert tokens.shape == (sum(num_tokens(config, *grid) for grid in grids), 16)
assert "mean_pool" in static_source("mean_pool")
""",
    "vlm/experts/brightness.py": """
import sys
from pathlib import Path
from PIL import Image
from vlm.experts import get_expert
Image.new("RGB", (8, 8), (100, 100, 100)).save("grey.png")
assert get_expert("BRIGHTNESS")().run(Path("grey.png"), ()).text == "mean brightness 100 of 255"
""",
    "llm/model_families/olmo2.py": """
import torch
from llm import families, load_language_model
model = load_language_model(families()["olmo2"].tiny()).eval()
ids, seq_idx = torch.arange(10, 20)[None], torch.tensor([[0] * 4 + [1] * 6])
packed = model(ids, seq_idx=seq_idx).logits[:, 4:]
assert (packed - model(ids[:, 4:]).logits).abs().max() < 1e-5
assert (packed - model(ids).logits[:, 4:]).abs().max() > 1e-3
""",
    "eval/tasks/my_bench.py": """
from eval.tasks import get_task
assert get_task("my_bench").metrics == ("starts_right",)
""",
    "eval/metrics/starts_right.py": """
from eval.metrics import get_metric
assert get_metric("starts_right")("Blue, I think", ["blue"]) == 1.0
assert get_metric("starts_right")("red", ["blue"]) == 0.0
""",
}


def shown_files() -> dict[str, str]:
    blocks = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    return dict(blocks)


def test_the_page_shows_the_files_that_are_checked():
    assert shown_files().keys() == CHECKS.keys()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("tree")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in shown_files().items():
        (copy / name).write_text(text)
    return copy


def test_every_shown_file_works_by_existing(tree):
    for name, check in CHECKS.items():
        done = subprocess.run([sys.executable, "-c", check], cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr[-1500:]}"
    lint = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "ruff.toml"), *CHECKS]
    done = subprocess.run(lint, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
