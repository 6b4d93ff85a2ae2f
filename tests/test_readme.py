"""The commands of README.md, eval/README.md, training/README.md and MEDICAL.md, run as written: the demo in its fast
form, then all that works on what it leaves.

Placeholders of the README (`receipt.png`, `my-data` ...) are made here from the demo's own data. Commands that download
real weights, install packages or need the user's own machine are listed by name and only checked for being known.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = ("make ", "pip install", "deepspeed training/stage1.py", "radio-vlm new --vision nvidia/")
LONG = ("radio-vlm plan ", "radio-vlm train ")  # minutes together; run by `make check`
BIN = Path(sys.executable).parent


def bash_commands() -> list[str]:
    names = ("README.md", "training/README.md", "training/MEDICAL.md", "eval/README.md")
    pages = [(ROOT / name).read_text() for name in names]
    blocks = [block for page in pages for block in re.findall(r"```bash\n(.*?)```", page, re.S)]
    blocks = [block for block in blocks if not block.startswith("#!")]  # a Slurm job
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def run(command: list[str], cwd: Path, **kwargs) -> subprocess.CompletedProcess:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done


def typed(line: str) -> list[str]:
    """The README's line as the processes of this test run it: same words, this interpreter."""
    words = shlex.split(line)
    if words[:2] == ["radio-vlm", "train"]:
        words += ["--guard", "flag", "train.max_steps=2"]
    if words[0] == "radio-vlm":
        return [sys.executable, "-m", "vlm", *words[1:]]
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    if words[0] == "deepspeed":
        port = 29000 + sum(map(ord, line)) % 900
        return [str(BIN / "deepspeed"), "--master_port", str(port), *words[1:], "train.max_steps=2"]
    raise AssertionError(f"README shows a command that nothing here can run: {line}")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A clone's folders beside a fresh runs/, after `radio-vlm demo --fast`."""
    place = tmp_path_factory.mktemp("readme")
    for folder in ("vlm", "encoders", "projectors", "llm", "training", "eval"):
        (place / folder).symlink_to(ROOT / folder)
    run([sys.executable, "-m", "vlm", "demo", "--fast"], place, timeout=900)
    data = place / "runs/demo/data"
    shutil.copy(data / "documents-test/images/000000.png", place / "receipt.png")
    shutil.copy(data / "videos-test/videos/000000.mp4", place / "clip.mp4")
    shutil.copy(data / "patients-test/dicom/000000.dcm", place / "slice.dcm")
    pages = [Image.open(path).convert("RGB") for path in sorted((data / "documents-test/images").iterdir())[:3]]
    pages[0].save(place / "report.pdf", save_all=True, append_images=pages[1:])
    shutil.copytree(data / "documents-val", place / "my-data")
    shutil.copy(data / "documents-val/records.jsonl", place / "my-questions.jsonl")
    shutil.copytree(data / "documents-val/images", place / "images")
    (place / "runs/nano9b").mkdir()
    (place / "runs/nano9b/stage0").symlink_to(place / "runs/demo/stage0")
    return place


def test_the_demo_leaves_what_the_readme_promises(workplace):
    results = json.loads((workplace / "runs/demo/results.json").read_text())
    assert set(results["stages"]) == {"stage1", "stage2", "stage3", "stage4"}
    for stage in results["stages"].values():
        assert {"exact_match", "anls", "n", "kinds", "controls"} <= stage["documents"].keys()
        assert {"accuracy", "n", "controls"} <= stage["videos"].keys()
        assert {"accuracy", "n", "trigger_precision", "trigger_recall", "controls"} <= stage["medical"].keys()
        assert set(stage["medical"]["controls"]) == {"expert_withheld", "expert_wrong"}
    assert (workplace / results["report"]).stat().st_size > 50_000
    assert (workplace / results["checkpoint"] / "config.json").is_file()


def test_every_command_of_the_readme_runs(workplace):
    lines = [line for line in bash_commands() if not line.startswith((*NOT_RUN, *LONG))]
    for line in lines:
        run(typed(line), workplace, timeout=300)
    assert len(lines) >= 25


@pytest.mark.slow
def test_every_long_command_of_the_readme_runs(workplace):
    lines = [line for line in bash_commands() if line.startswith(LONG)]
    for line in lines:
        run(typed(line), workplace, timeout=900)
    assert len(lines) >= 3
    assert (workplace / "runs/tiny/guard/guard.md").is_file()


def test_the_python_of_the_readme_runs(workplace):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        assert run([sys.executable, "-c", block], workplace, timeout=120).stdout.endswith("\n")


def test_the_table_of_releases_is_that_of_the_code():
    from encoders.versions import table_rows

    assert "\n".join(table_rows()) in (ROOT / "README.md").read_text()
