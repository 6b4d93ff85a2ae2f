"""A site-packages folder that holds torch, transformers, Pillow and what they require, and nothing else.

Built from links into the running environment, so it costs no download; `run_bare` starts Python with that folder alone
(no site, no user packages, no current folder), which is what a user without radio-vlm has.
"""

import importlib.metadata as metadata
import os
import re
import subprocess
import sys
from pathlib import Path

ROOTS = ("torch", "transformers", "pillow")


def requirements(root: str) -> list[str]:
    """Names of the distributions `root` needs here: markers evaluated, extras left out."""
    from packaging.requirements import Requirement

    names = []
    for line in metadata.requires(root) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names.append(requirement.name)
    return names


def closure(roots: tuple[str, ...] = ROOTS) -> list[str]:
    """All distributions needed by `roots`, themselves included; those not installed here are left out."""
    found, queue = {}, list(roots)
    while queue:
        name = queue.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[key] = name
        queue += requirements(name)
    return sorted(found.values())


def build(folder: Path) -> Path:
    """Link the top-level entries of every needed distribution into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in closure():
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            target, link = Path(str(distribution.locate_file(top))), folder / top
            if target.exists() and not link.exists():
                link.symlink_to(target)
    return folder


def run_bare(code: str, site: Path, cwd: Path, *args: str, timeout: int = 300) -> subprocess.CompletedProcess:
    """Run `code` with `site` as the only packages, offline, with a fresh Hugging Face cache in `cwd`."""
    program = f"import sys; sys.path.append({str(site)!r})\n{code}"
    environment = {"HOME": str(cwd), "HF_HOME": str(cwd / "hf"), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-I", "-S", "-c", program, *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
