"""Builds an environment with lmms-eval beside this package that also works without a GPU.

    python tests/check/lmms_environment.py ENV_FOLDER

`pip install lmms_eval` brings the CUDA build of torchvision, and beside a CPU build of torch every image processor of
transformers then fails at import (`operator torchvision::nms does not exist`). So lmms-eval comes without its
requirements, and those come after it, read from its own metadata, without what an evaluation of ours never imports.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LMMS_EVAL = "0.7.3"

# torch is there already; the next ones need a GPU build or carry native libraries; the rest are its makers' tools.
LEFT_OUT = {
    *("torch", "torchvision", "timm", "decord"),
    *("sentence-transformers", "wandb", "pre-commit", "black", "isort", "ruff", "yt-dlp"),
}
# lmms-eval 0.7.3 imports `filelock._api`, which filelock 4 no longer has
BESIDE = ("filelock<4",)
# lmms-eval holds av below 16; the tests of this package run with a later one and work with either
NOT_PINNED = {"av"}


def needed(requires: Iterable[str]) -> list[str]:
    """The `Requires-Dist` lines to install: no extras, nothing of `LEFT_OUT`, each name once."""
    kept: dict[str, str] = {}
    for line in requires:
        requirement, _, marker = line.partition(";")
        name = _normal(re.match(r"[\w.-]+", requirement.strip())[0])
        if "extra ==" not in marker and name not in LEFT_OUT:
            kept.setdefault(name, line.strip())
    return list(kept.values())


def constraints(text: str) -> str:
    """The pins of constraints.txt without those that lmms-eval forbids."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return "".join(f"{line}\n" for line in lines if _normal(re.split(r"[=<>~! ]", line)[0]) not in NOT_PINNED)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def build(folder: Path) -> Path:
    """The Python of the environment in `folder`, made or completed; a few minutes and 2 GB when it is new.

    pip prints that lmms-eval's requirements are not all there: so they are, on purpose.

    Raises subprocess.CalledProcessError where pip cannot get a package.
    """
    python = folder.resolve() / "bin/python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pins = folder.resolve() / "constraints.txt"
    pins.write_text(constraints((ROOT / "constraints.txt").read_text(encoding="utf-8")), encoding="utf-8")

    def pip(*words: str) -> None:
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", pins]
        subprocess.run([*map(str, command), *words], check=True)

    pip("torch")  # first and alone: a resolver that starts from the others may choose another build of it
    pip("--no-deps", f"lmms_eval=={LMMS_EVAL}")
    read = "import importlib.metadata as m, json; print(json.dumps(m.requires('lmms_eval')))"
    found = subprocess.run([str(python), "-c", read], check=True, capture_output=True, text=True)
    pip(*needed(json.loads(found.stdout)), *BESIDE)
    pip("--editable", f"{ROOT}[video,documents]", *BESIDE)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the environment is to be")
    sys.stdout.write(f"{build(parser.parse_args().folder)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
