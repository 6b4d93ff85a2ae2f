"""Which optional kernels are installed, what each family of language models computes with, and how to get the rest: the
sections of `inspect --kernels`. Not a command.
"""

import logging
import os
import shutil
import textwrap
from pathlib import Path

from vlm.cli.tables import text_table

WIDTH = 118


def kernel_sections(model_name: str = "", text_config=None) -> list[tuple[str, str]]:
    """(title, body) of every section; with a checkpoint's language-model config also what that one will use."""
    kernels = found_kernels()
    sections = [("Kernels", kernel_table(kernels)), ("Language models", family_table(kernels))]
    if text_config is not None:
        sections.append((f"Language model of {model_name}", checkpoint_table(kernels, text_config)))
    return [*sections, ("To install what is missing", install_text(kernels, can_compile_cuda()))]


def found_kernels() -> dict:
    """Name -> `llm.kernels.Kernel`; the warnings that come with broken ones are left to the table."""
    from llm.kernels import find_kernels, logger

    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return find_kernels()
    finally:
        logger.setLevel(level)


def kernel_table(kernels: dict) -> str:
    """One row a kernel; below the table, in full, what is wrong with a broken one."""
    rows, remarks = [], []
    for kernel in kernels.values():
        found = f"{kernel.version}, broken" if kernel.error else kernel.version or "not installed"
        rows.append((kernel.name, kernel.package, found, kernel.purpose, kernel.instead))
        if kernel.error:
            remarks.append(f"{kernel.name}: {kernel.package} is installed but broken: {kernel.error}")
        elif kernel.note:
            remarks.append(f"{kernel.name}: {kernel.note}")
    head = ("kernel", "package", "installed", "computes", "without it")
    return "\n".join([text_table(head, rows), *map(folded, remarks)])


def family_table(kernels: dict) -> str:
    """What each family computes with on the CPU and on CUDA; the loss is common to all."""
    from llm.family import families

    rows = [(name, *choices(kernels, family.kernels)) for name, family in families().items()]
    rows.append(("any other", "as in transformers", "as in transformers"))
    rows.append(("(every loss)", *choices(kernels, ("liger_linear_cross_entropy",))))
    table = text_table(("family", "on the CPU", f"on CUDA ({cuda_devices()})"), rows)
    return f'{table}\nAttention is sdpa unless attn_implementation="flash_attention_2" asks for that kernel.'


def choices(kernels: dict, names: tuple[str, ...]) -> tuple[str, str]:
    """What computes on the CPU and on CUDA for a family that can use the kernels `names`.

    flash-attn is used on request only, so it stands beside PyTorch's attention.
    """
    cpu, cuda = [], []
    for kernel in map(kernels.__getitem__, names):
        cpu.append(kernel.instead)
        if kernel.function is None:
            cuda.append(kernel.instead)
        else:
            cuda.append(f"sdpa or {kernel.name}" if kernel.name == "flash_attention_2" else kernel.name)
    return ", ".join(cpu), ", ".join(cuda)


def checkpoint_table(kernels: dict, text_config) -> str:
    """The same for the language model of one checkpoint."""
    from llm.family import family_of

    family = family_of(text_config)
    cpu, cuda = choices(kernels, family.kernels) if family.kernels else ("as in transformers",) * 2
    rows = [
        ("family", f"{text_config.model_type}: {family.title}"),
        ("on the CPU", cpu),
        (f"on CUDA ({cuda_devices()})", cuda),
        ("attention of this checkpoint", text_config._attn_implementation or "sdpa"),
    ]
    return text_table(("what", "how"), rows)


def install_text(kernels: dict, can_compile: bool) -> str:
    """The one line for what can be installed here, and what the rest needs."""
    missing = [kernel for kernel in kernels.values() if kernel.function is None]
    if not missing:
        return "Nothing is missing."
    now = [kernel for kernel in missing if can_compile or not kernel.needs_nvcc]
    later = [kernel for kernel in missing if kernel not in now]
    lines = [install_line(now)] if now else []
    if later:
        names = ", ".join(kernel.name for kernel in later)
        where = "where CUDA code can be compiled (nvcc and a CUDA build of PyTorch), which is not here"
        lines += [folded(f"{'And ' * bool(now)}{names}, {where}:"), install_line(later)]
    if not cuda_count():
        lines.append("Kernels run on CUDA devices only: without one, PyTorch computes everything.")
    return "\n".join(lines)


def install_line(missing: list) -> str:
    """One shell line that installs these kernels; of a package's several lines, the one that builds all of it."""
    lines = {kernel.package: kernel.install for kernel in sorted(missing, key=lambda kernel: kernel.needs_nvcc)}
    commands: dict[str, dict[str, None]] = {}  # command with its options -> packages, as an ordered set
    for part in " && ".join(lines.values()).split(" && "):
        words = part.split()
        packages = max(i for i, word in enumerate(words) if word.startswith("-") or word.endswith("install")) + 1
        commands.setdefault(" ".join(words[:packages]), {}).update(dict.fromkeys(words[packages:]))
    return " && ".join(f"{command} {' '.join(packages)}" for command, packages in commands.items())


def folded(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def can_compile_cuda() -> bool:
    """Whether CUDA extensions of PyTorch can be built here."""
    import torch

    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    nvcc = shutil.which("nvcc") or any(home and Path(home, "bin/nvcc").is_file() for home in homes)
    return bool(nvcc) and torch.version.cuda is not None


def cuda_count() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def cuda_devices() -> str:
    count = cuda_count()
    return f"{count} device{'s' * (count > 1)} here" if count else "no device here"
