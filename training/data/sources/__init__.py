"""Data sources, one file a format. Importing this package registers every format found in the folder."""

import importlib
import pkgutil

from training.data.sources.registry import SOURCES, DataError, Source, open_source, register_source, under_root

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["SOURCES", "DataError", "Source", "open_source", "register_source", "under_root"]
