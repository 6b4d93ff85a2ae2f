"""Finds every projector in this folder by importing its files; the only dynamic file of the model's code.

A checkpoint that carries its own code cannot look into folders: there, this file is replaced by the text that
`static_source` writes, which imports the one projector the checkpoint uses.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

from projectors.registry import (
    build_projector,
    count_facts,
    default_config,
    get_projector,
    grid_multiple,
    keeps_places,
    num_tokens,
    project,
    projector_names,
)

__all__ = [
    "build_projector",
    "count_facts",
    "default_config",
    "get_projector",
    "grid_multiple",
    "keeps_places",
    "num_tokens",
    "project",
    "projector_names",
    "static_source",
]

_NOT_PROJECTORS = ("components", "registry")

for _file in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if _file.name not in _NOT_PROJECTORS:
        importlib.import_module(f"projectors.{_file.name}")


def static_source(projector_type: str) -> str:
    """Text of the stand-in for this file in a self-contained checkpoint that uses `projector_type`."""
    cls = get_projector(projector_type)
    module = Path(inspect.getfile(cls)).stem
    names = [name for name in __all__ if name != "static_source"]
    listed = "".join(f"    {name},\n" for name in names)
    exported = "".join(f'    "{name}",\n' for name in (cls.__name__, *names))
    return (
        '"""Written on saving: the projector of this checkpoint. In the package this file finds all of them."""'
        "\n\nfrom pathlib import Path\n\n"
        f"from projectors.{module} import {cls.__name__}\n"
        f"from projectors.registry import (\n{listed})\n\n__all__ = [\n{exported}]\n\n\n"
        "def static_source(projector_type: str) -> str:\n"
        '    """This very file: saving again keeps the same projector."""\n'
        '    return Path(__file__).read_text(encoding="utf-8")\n'
    )
