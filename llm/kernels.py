"""Finds the optional CUDA kernels (Mamba scans, causal convolution, flash attention, linear cross-entropy). Nothing
here may break an import: a package that is missing or broken leaves the PyTorch path, which every kernel has, and a
broken one is named in one warning. Records are made at the first question, never when this file is imported.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import types
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

logger = logging.getLogger(__name__)

# Built for the PyTorch that is here, and never taken from pip's cache of earlier builds, which may lack the CUDA part.
_BUILD = "pip install --no-build-isolation --no-cache-dir"
_TOOLS = "pip install setuptools wheel ninja packaging einops"
# Skips nvcc and the search for a ready wheel on the internet; --no-deps because of pins that only Mamba-3 needs.
_TRITON_ONLY = f"{_TOOLS} && MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE {_BUILD} --no-deps mamba-ssm"


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What is known of one kernel on this machine.

    Attributes:
        name: What `kernel(name, device)` takes.
        package: Its name on PyPI.
        purpose: What it computes, and when.
        instead: What computes it in PyTorch.
        install: The one line that installs it, or installs a broken one anew.
        needs_nvcc: Installing it compiles CUDA code (unless a ready wheel fits), so the CUDA toolkit is needed.
        version: Of the installed package, "unknown" where it does not say; None: not installed.
        function: The callable; None: not installed, or broken.
        error: Why an installed package cannot be used; None: usable, or not installed.
        note: How it was imported, where that was not the ordinary way.
    """

    name: str
    package: str
    purpose: str
    instead: str
    install: str
    needs_nvcc: bool
    version: str | None = None
    function: Callable | None = None
    error: str | None = None
    note: str = ""

    @property
    def state(self) -> str:
        """"VERSION", "not installed" or "VERSION, installed but broken: ERROR"."""
        if self.version is None:
            return "not installed"
        return f"{self.version}, installed but broken: {self.error}" if self.error else self.version


# name -> (module, attribute) of the callable. The modules of mamba_ssm stand by themselves: see `_import`.
_TARGETS = {
    "mamba_chunk_scan": ("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"),
    "selective_scan": ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"),
    "causal_conv1d": ("causal_conv1d", "causal_conv1d_fn"),
    "flash_attention_2": ("flash_attn", "flash_attn_varlen_func"),
    "liger_linear_cross_entropy": ("liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy"),
}
_STANDALONE = ("mamba_chunk_scan", "selective_scan")
_KNOWN = {
    record.name: record
    for record in (
        Kernel(
            name="mamba_chunk_scan",
            package="mamba-ssm",
            purpose="Mamba-2 scan",
            instead="llm.ssd_scan",
            install=_TRITON_ONLY,
            needs_nvcc=False,
        ),
        Kernel(
            name="selective_scan",
            package="mamba-ssm",
            purpose="Mamba-1 scan, unpacked only",
            instead="llm.selective_scan",
            install=f"{_TOOLS} && {_BUILD} mamba-ssm",
            needs_nvcc=True,
        ),
        Kernel(
            name="causal_conv1d",
            package="causal-conv1d",
            purpose="convolution of Mamba layers",
            instead="llm.causal_conv",
            install=f"{_TOOLS} && {_BUILD} causal-conv1d",
            needs_nvcc=True,
        ),
        Kernel(
            name="flash_attention_2",
            package="flash-attn",
            purpose="attention, on request",
            instead="sdpa",
            install=f"{_TOOLS} && {_BUILD} flash-attn",
            needs_nvcc=True,
        ),
        Kernel(
            name="liger_linear_cross_entropy",
            package="liger-kernel",
            purpose="loss without token weights",
            instead="llm.linear_cross_entropy",
            install="pip install liger-kernel",
            needs_nvcc=False,
        ),
    )
}


def find_kernels() -> dict[str, Kernel]:
    """Name -> record of every kernel; imports the packages that are installed, each once in a process."""
    return {name: find_kernel(name) for name in _KNOWN}


def kernel(name: str, device: torch.device | str) -> Callable | None:
    """The callable of a kernel where it can run, else None; nothing is imported for a device that is not CUDA.

    Under `torch.compile` the answer None costs nothing; a callable is fetched outside the graph.

    Raises:
        ValueError: `name` is no kernel.
    """
    _check_name(name)
    if torch.device(device).type != "cuda" or not _usable(name):
        return None
    return _function(name)


@torch.compiler.assume_constant_result
def _usable(name: str) -> bool:
    return find_kernel(name).function is not None


@torch.compiler.disable
def _function(name: str) -> Callable:
    return find_kernel(name).function


def clear_kernels() -> None:
    """Forget what was found and which warnings were given, so that the next question looks again."""
    find_kernel.cache_clear()
    _import_error.cache_clear()
    _warn_broken.cache_clear()


@functools.cache
def find_kernel(name: str) -> Kernel:
    """The record of one kernel, looked for on the first call. A package that is installed but broken: one warning.

    Raises:
        ValueError: `name` is no kernel.
    """
    _check_name(name)
    record = _KNOWN[name]
    module, attribute = _TARGETS[name]
    version = _installed_version(record.package, module.split(".")[0])
    if version is None:
        return record
    function, error, note = _import(module, attribute, name in _STANDALONE)
    install = record.install
    if error:
        _warn_broken(record.package, version, _import_error(module.split(".")[0]) or error)
        install = f"pip uninstall -y {record.package} && {install}"
    return replace(record, version=version, function=function, error=error, note=note, install=install)


def _check_name(name: str) -> None:
    if name not in _KNOWN:
        raise ValueError(f"no kernel is called {name!r}; known: {', '.join(_KNOWN)}")


def _installed_version(package: str, module: str) -> str | None:
    """Version of an installed package; a module without metadata counts, a bare namespace folder does not.

    (FlashAttention 4 is another package that puts its files below a folder named `flash_attn`.)
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    if sys.modules.get(module) is not None:
        return getattr(sys.modules[module], "__version__", "unknown")
    spec = importlib.util.find_spec(module)
    return "unknown" if spec is not None and spec.origin is not None else None


def _import(module: str, attribute: str, standalone: bool) -> tuple[Callable | None, str | None, str]:
    """(callable, error, note). `standalone`: where the package's own import fails, its module is imported without it.

    mamba-ssm's `__init__` imports every model it has, so it fails where one compiled extension or one optional package
    is missing, although the Triton files of the Mamba-2 scan need neither.
    """
    package = module.split(".")[0]
    failed = _import_error(package)
    if failed is None:
        function, error = _attribute(module, attribute)
        return function, error, ""
    if not standalone:
        return None, failed, ""
    with _bare_parent(package):
        function, error = _attribute(module, attribute)
    if function is None:
        return None, failed if error == failed else f"{failed}; {module} alone: {error}", ""
    # torch.compile follows a function by importing its module, which nobody can outside `_bare_parent`.
    return torch.compiler.disable(function), None, f"{module} alone, because `import {package}` fails: {failed}"


def _attribute(module: str, attribute: str) -> tuple[Callable | None, str | None]:
    """(callable, None) or (None, error), whatever a foreign package raises while it is imported."""
    try:
        return getattr(importlib.import_module(module), attribute), None
    except Exception as error:
        return None, _text(error)


@functools.cache
def _import_error(package: str) -> str | None:
    """Why a package cannot be imported; None: it can. Tried once, a second try may fail with another error."""
    try:
        importlib.import_module(package)
    except Exception as error:
        return _text(error)
    return None


@contextmanager
def _bare_parent(package: str):
    """Let modules of `package` be imported without its `__init__`; afterwards `sys.modules` is as it was.

    Nobody else gets to see the half package: a later `import` of it fails as it would have failed before. Functions
    keep the modules they use alive.
    """
    before = {name: sys.modules.pop(name) for name in _loaded(package)}
    spec = importlib.util.find_spec(package)
    parent = types.ModuleType(package)
    parent.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    sys.modules[package] = parent
    try:
        yield
    finally:
        for name in _loaded(package):
            del sys.modules[name]
        sys.modules.update(before)


def _loaded(package: str) -> list[str]:
    return [name for name in sys.modules if name == package or name.startswith(f"{package}.")]


@functools.cache
def _warn_broken(package: str, version: str, error: str) -> None:
    """Once for a package and an error: several kernels may come from one package."""
    logger.warning(
        "%s %s is installed but broken (%s): PyTorch computes what it cannot. "
        "`radio-vlm inspect --kernels` tells more.",
        package,
        version,
        error,
    )


def _text(error: Exception) -> str:
    """Kind and message of an error, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
