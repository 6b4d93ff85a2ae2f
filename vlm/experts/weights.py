"""Where an expert's weights lie, and what is said when they, or its package, are not there.

Nothing is downloaded behind a user's back: weights are put into a folder by hand or by `radio-vlm experts --download`,
because their licences are their own (VISTA3D's and BraTS's are not the code's).
"""

import functools
import hashlib
import importlib.util
import os
from pathlib import Path

from vlm.experts.protocol import Expert, ExpertError


def weights_folder(name: str) -> Path:
    """The folder in which the weights called `name` are looked for when no other is given."""
    return home() / ".cache" / "radio-vlm" / "experts" / name


def home() -> Path:
    """The user's home folder; `~` as it stands where there is none, so that asking never fails."""
    return Path(os.path.expanduser("~"))


def own_folder(expert: type[Expert], root: Path | None) -> dict[str, Path]:
    """`{"folder": root/NAME}` where `root` holds a folder for the weights of this expert; {}, its own default, else."""
    name = expert.weights_name
    return {"folder": Path(root) / name} if root is not None and name and (Path(root) / name).is_dir() else {}


def weights_digest(expert: type[Expert], root: Path | None = None) -> str | None:
    """16 hex digits of the weights that an expert would be opened with: names and contents of all files.

    None for an expert without weights, or whose weights are not there.
    """
    if not expert.weights_name:
        return None
    folder = own_folder(expert, root).get("folder", weights_folder(expert.weights_name))
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    digest = hashlib.sha256()
    for file in files:
        about = file.stat()
        digest.update(f"{file.relative_to(folder)}\0{_digest(file, about.st_size, about.st_mtime_ns)}".encode())
    return digest.hexdigest()[:16] if files else None


@functools.lru_cache(maxsize=1024)
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def why_not(expert: type[Expert], root: Path | None = None) -> str | None:
    """What this machine lacks for an expert whose weights may lie below `root`; None where it can be used."""
    return expert.unavailable(**own_folder(expert, root))


def open_expert(expert: type[Expert], root: Path | None = None) -> Expert:
    """An instance of an expert, its weights from below `root` where they are there."""
    return expert(**own_folder(expert, root))


def missing_packages(*packages: str, extra: str) -> str | None:
    """None when all packages can be imported (nothing is imported), else what to install."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"not installed: {', '.join(absent)}; pip install 'radio-vlm[{extra}]'" if absent else None


def missing_files(folder: Path, *files: str, how: str) -> str | None:
    """None when every file is in `folder`, else which one is missing and `how` to get it."""
    for file in files:
        if not (folder / file).is_file():
            return f"no weights: {folder / file} is missing; {how}"
    return None


def require(reason: str | None, name: str) -> None:
    """Raise `ExpertError` when there is a reason why the expert `name` cannot be used."""
    if reason:
        raise ExpertError(f"{name} cannot be used here: {reason}")
