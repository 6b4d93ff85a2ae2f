"""Where an expert's weights lie, and what is said when they, or its package, are not there.

Nothing is downloaded behind a user's back: weights are put into a folder by hand or by `radio-vlm experts --download`,
because their licences are their own (VISTA3D's and BraTS's are not the code's).
"""

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
